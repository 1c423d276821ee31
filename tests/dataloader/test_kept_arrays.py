"""Arrays of the data's way to the network, looked at once: draws, orders, augmented images and labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import scenes
from dataloader.augmentation import AugmentationOptions, Draws, draw_augmentation
from dataloader.batch import Batch
from dataloader.cache import SampleCache
from dataloader.choice import is_real_section, scene_folder, training_sections
from dataloader.images import resize_image, resized_shape
from dataloader.labels import LabelCamera, label_camera, read_calibration
from dataloader.packed import FOLDERS, HEADER_BYTES, VERSION
from dataloader.packing import main as pack_command
from dataloader.prepare import collate, prepare_for_evaluation, prepare_for_training
from dataloader.preprocessing import Preprocessing
from dataloader.resampling import CameraChange, Plane, _depth_at, sample
from dataloader.sampler import RunBatchSampler
from dataloader.section import Label, Sample, View
from dataloader.seeding import GEOMETRY, ORDER, PHOTOMETRY, REAL_ORDER, SYNTHETIC_ORDER, generator_of
from geometry.cameras import intrinsics_matrix
from geometry.poses import rotation_xy, rotation_z
from tasks import TASKS
from tests.kept import assert_kept


def test_streams_of_chance():
    assert (ORDER, REAL_ORDER, SYNTHETIC_ORDER, GEOMETRY, PHOTOMETRY) == (0, 1, 2, 3, 4)
    seeds = [generator_of(*place).initial_seed() for place in ((0, 0), (2021, 3, 4), (2021, 4, 3), (1, 4, 2, 7))]
    drawn = draw_augmentation(AugmentationOptions(shading=0.1), seed=7, epoch=2, images_seen=12, indices=(5, 0))
    bare = draw_augmentation(AugmentationOptions(), seed=7, epoch=2, images_seen=12, indices=(5,))
    assert_kept("draws", [seeds, drawn, bare])


def test_orders_of_a_run():
    is_real = [True, False, False, True, False, False, False]
    every = [list(RunBatchSampler(is_real, 3, seed=1, epochs=3, start_images=start, real_share=share))
             for share in (None, 0.5, 0.05, 0.99) for start in (0, 4)]  # fmt: skip
    assert_kept("orders", every)
    for start, batches in ((0, 9), (3, 8), (4, 8), (7, 6), (20, 1), (21, 0), (30, 0)):
        sampler = RunBatchSampler(is_real, 3, seed=1, epochs=3, start_images=start)
        assert len(sampler) == batches == len(list(sampler)), start
    for refused in (dict(batch_size=0), dict(is_real=[]), dict(start_images=-1), dict(real_share=0.0), dict(real_share=1.0),
                    dict(real_share=0.5, is_real=[True]), dict(real_share=0.5, is_real=[False])):  # fmt: skip
        arguments = {"is_real": is_real, "batch_size": 1, "seed": 0, "epochs": 1} | refused
        with pytest.raises(ValueError):
            RunBatchSampler(**arguments)
    assert len(RunBatchSampler([True], 1, seed=0, epochs=1)) == 1


def small_sample(task, index, height=16, width=24):
    """A picture and a label map without any symmetry."""
    rng = np.random.default_rng(index)
    image_HW3 = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    K_33 = intrinsics_matrix(20.0, 22.0, width / 2 + 1, height / 2 - 1)
    stride = 1 if task == "semantics" else 8
    h, w = -(-height // stride), -(-width // stride)
    pose_44 = rotation_xy(0.1, -0.2) @ rotation_z(0.3 + index)
    pose_44[:3, 3] = torch.tensor([10.0, 20.0, 30.0])
    map_Chw = torch.from_numpy(rng.uniform(1, 2, (max(TASKS[task].label_channels, 1), h, w))).float()
    if task == "semantics":
        map_Chw = (map_Chw * 97 % 6).byte()
    elif task == "coord":  # points on the rays of their cells, 40 to 80 m away
        rows, columns = torch.meshgrid((torch.arange(h) + 0.5) * 8, (torch.arange(w) + 0.5) * 8, indexing="ij")
        rays = torch.linalg.inv(K_33) @ torch.stack((columns, rows, torch.ones(h, w))).double().flatten(1)
        p_3N = pose_44[:3, :3] @ (rays * 40 * map_Chw[:1].double().flatten(1)) + pose_44[:3, 3:]
        map_Chw = p_3N.view(3, h, w).float()
    valid_1hw = torch.ones(1, h, w, dtype=torch.bool)
    valid_1hw[0, 0, 0] = task == "semantics"
    return Sample(View(image_HW3, K_33, f"s/{index}"), Label(map_Chw, valid_1hw, pose_44, K_33, stride), index)


@pytest.mark.parametrize("task", list(TASKS))
def test_batches_in_numbers(task):
    """All that chance may do at once, and nothing; of two images of one size, and of two sizes."""
    options = AugmentationOptions(0.3, 0.2, 0.4, 40.0, 12.0, 0.2, (0.5, 1.5))
    tilt_2, shift_2 = torch.tensor([0.5, -0.75]).double(), torch.tensor([-0.5, 0.25]).double()
    grid = torch.linspace(-1, 1, 48).view(4, 3, 4)
    draws = Draws(0.6, -0.4, tilt_2, shift_2, torch.linspace(-1, 1, 10).view(2, 5), torch.stack((grid, grid.flip(1))))
    preprocessing = Preprocessing(16, False, (0.3, 0.4, 0.5), (0.2, 0.25, 0.1))
    batches = []
    for width in (24, 16):
        raw = collate([small_sample(task, 3), small_sample(task, 4, width=width)])
        batches += [
            prepare_for_training(raw, preprocessing, task, options, draws),
            prepare_for_evaluation(raw, preprocessing, task),
        ]
    shown = [{name: coarse(v, task) if name in ("images_B3HW", "labels_BChw") else v for name, v in vars(b).items()
              if name != "valid_B1hw" or task != "semantics"} for b in batches if isinstance(b, Batch)]  # fmt: skip
    assert_kept(f"batches-{task}", shown, rtol=1e-3, atol=2e-3)


def coarse(maps, task):
    """Every third row and fifth column of what has many."""
    return maps[..., ::3, ::5] if maps.shape[-1] > 6 else maps


def test_colours_in_numbers():
    images_B3HW = torch.arange(24, dtype=torch.uint8).view(1, 3, 2, 4) * 10
    gain, offset, shading = torch.tensor([[1.2, 0.8, 1.0]]), torch.tensor([[0.1, 0.0, -0.1]]), torch.full((1, 3, 2, 4), 1.1)
    shading[:, 1] = 0.7
    found = []
    for preprocessing in (Preprocessing(), Preprocessing(48, True, (0.43,), (0.17,))):
        found.append(preprocessing.normalise(images_B3HW))
        found.append(preprocessing.normalise(images_B3HW, gain, offset, shading))
    assert_kept("colours", [list(vars(Preprocessing()).values()), found])


def test_depth_between_cells_of_one_surface_and_across_edges():
    """A slope, a step of a third, a hole, a negative depth, and the border; at cells' centres and between them."""
    rows = [[10.0, 10.5, 11.0, 15.0, 15.5, 16.0]] * 2
    rows += [[10.0, 10.5, 11.0, -3.0, 15.5, 16.0], [10.0, 10.5, 10.9, 11.4, 11.9, 12.5]]
    depth = torch.tensor(rows)[None, None]
    valid = torch.ones(1, 1, 4, 6, dtype=torch.bool)
    valid[0, 0, 0, 4] = False
    x, y = torch.meshgrid(torch.linspace(-1.05, 1.05, 13), torch.linspace(-1.05, 1.05, 9), indexing="xy")
    grid = torch.stack((x, y), -1)[None]
    assert_kept("depth-between-cells", [_depth_at(depth, valid, grid), sample(depth, grid, "nearest")])
    ramp = torch.full((1, 1, 5, 5), 10.0) * torch.linspace(1, 1.0 + 4 * 0.049, 5)  # over three cells a ratio of 1.098
    between = torch.tensor([[[[0.1, 0.1]]]])
    assert float(_depth_at(ramp, torch.ones_like(ramp, dtype=torch.bool), between)) != float(ramp[0, 0, 2, 2])
    steep = torch.full((1, 1, 5, 5), 10.0) * torch.linspace(1, 1.0 + 4 * 0.06, 5)
    assert float(_depth_at(steep, torch.ones_like(steep, dtype=torch.bool), between)) == pytest.approx(11.2)


def test_a_camera_change_in_numbers():
    K_B33 = torch.stack([intrinsics_matrix(20, 22, 13, 7), intrinsics_matrix(20, 22, 12, 7)])
    R_33 = (rotation_xy(0.1, -0.2) @ rotation_z(0.3))[:3, :3]
    changes = [CameraChange.between(Plane(K_B33[:n], (2, 3), 8), Plane(1.5 * K_B33[:n], (3, 2)), R, torch.device("cpu"))
               for n in (1, 2) for R in (R_33, torch.eye(3).double())]  # fmt: skip
    assert_kept("camera-changes", [[vars(c), c.grid_Ghw2(), c.rays_G3N()] for c in changes])


def test_the_cache_keeps_what_fits_to_the_byte():
    arrays = [np.arange(5, dtype=np.uint8), np.ones((2, 3, 4)), np.array([True, False]), np.array([[7]], np.int64),
              np.float32([1.5, 2.5])]  # fmt: skip
    table, header = 8 * 4, 192  # 8 + 5 * 4 numbers of 8 bytes are 168
    size = header + 64 + 192 + 64 + 64 + 64
    for budget, fits in ((table + size, True), (table + size - 1, False)):
        cache = SampleCache(3, budget)
        assert cache.capacity == budget - table and cache.get(1) is None and cache.used == 0
        cache.put(1, arrays)
        assert cache.used == (size if fits else 0)
        if fits:
            for one, other in zip(cache.get(1), arrays, strict=True):
                assert one.dtype == other.dtype and np.array_equal(one, other) and one.shape == other.shape
    small = SampleCache(3, table + 3 * 128 - 1)  # a header of 64 bytes and 64 more each
    for index in (0, 2, 1):
        small.put(index, [np.full(64, index, np.uint8)])
        small.put(index, [np.full(64, 9, np.uint8)])  # what is in stays
    assert [None if found is None else found[0][0] for found in map(small.get, range(3))] == [0, None, 2]
    assert small.used == 256
    two = SampleCache(3, 10_000)
    two.put(0, [np.full(64, 1, np.uint8), np.full(64, 2, np.uint8)])
    assert two.used == 128 + 64 + 64 and [array[63] for array in two.get(0)] == [1, 2]  # a header of 72 bytes
    nothing = SampleCache(3, table)
    nothing.put(0, arrays)
    assert nothing.capacity == 0 and nothing.get(0) is None and nothing.used == 0
    factory, values = small.__reduce__()
    assert factory(*values).capacity == 0
    with pytest.raises(MemoryError, match=r"no room for 1073741824\.0 GiB of decoded images, --cache_gb"):
        SampleCache(3, 1 << 60)


def test_section_names_of_every_choice(tmp_path):
    def names(sim, real, only=False, domain="in_place"):
        chosen = training_sections(
            tmp_path, sim_data_chunk=sim, real_data_chunk=real, real_only=only, real_data_domain=domain
        )
        return [path.name for path in chosen]

    assert names(0.333, 0.5, domain="out_of_place") == [
        "train_sim_chunk_0.33", "train_oop_drone_sim_chunk_0.50", "train_oop_drone_real_chunk_0.50",
    ]  # fmt: skip
    assert names(0, 1, only=True) == ["train_drone_real"] and names(1, 0) == ["train_sim"]
    for arguments, message in (
        ((1.01, 0), r"--sim_data_chunk must lie in \[0, 1\], got 1.01"),
        ((-0.01, 0), "--sim_data_chunk"), ((0, 1.01), "--real_data_chunk"), ((0, -0.01), "--real_data_chunk"),
        ((0, 0), "no training data chosen"), ((0.1, 1, True), "--real_only needs --sim_data_chunk 0, got 0.1"),
        ((0, 1, False, "mars"), r"unknown real data domain 'mars'; choose from \['in_place', 'out_of_place'\]"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            names(*arguments)
    assert [is_real_section(name) for name in ("train_drone_real", "val_oop_drone_real", "train_drone_sim", "real")] == [
        True, True, False, False,
    ]  # fmt: skip
    folders = {(task, full): scene_folder(tmp_path, "town", task, full).name for task in TASKS for full in (True, False)}
    assert {key for key, name in folders.items() if name == "town-fullsize"} == {
        (t, True) for t in ("coord", "depth", "normal")
    }
    assert set(folders.values()) == {"town", "town-fullsize"}


@pytest.mark.parametrize(
    "photo, cells, expected",
    [
        ((960, 1440), (60, 90), (480, 720, 8)),
        ((960, 1440), (120, 180), (960, 1440, 8)),  # the photo itself
        ((960, 1440), (960, 1440), (960, 1440, 1)),
        ((960, 1453), (60, 90), (480, 720, 8)), ((960, 1455), (60, 90), None),  # 0.9 and 1.04 % wider
        ((960, 1427), (60, 90), (480, 720, 8)), ((960, 1425), (60, 90), None),
        ((96, 144), (6, 9), (48, 72, 8)), ((96, 120), (5, 6), None),
        ((479, 719), (61, 91), None),
    ],
)  # fmt: skip
def test_the_image_that_a_label_was_made_for(tmp_path, photo, cells, expected):
    arguments = tmp_path / "a.dat", torch.zeros(1, *cells), *photo, TASKS["depth"], intrinsics_matrix(100, 100, 50, 40)
    if expected is None:
        with pytest.raises(ValueError, match="a.dat has a map of"):
            label_camera(*arguments)
        return
    camera = label_camera(*arguments)
    assert isinstance(camera, LabelCamera) and (camera.height_px, camera.width_px, camera.stride) == expected
    assert camera.K_33[0, 0] == pytest.approx(100 * expected[1] / photo[1])
    assert camera.K_33[1, 1] == pytest.approx(100 * expected[0] / photo[0])


@pytest.mark.parametrize("cell, value, fine", [
    ((0, 1), 1e-9, True), ((1, 0), 1e-9, True),
    ((0, 1), 1e-10, True), ((0, 1), -1e-10, True), ((0, 1), 1e-8, False), ((0, 1), -1e-8, False),
    ((1, 0), 1e-10, True), ((1, 0), 1e-8, False), ((1, 0), -1e-8, False),
    ((2, 0), 1e-3, False), ((2, 1), 1e-3, False), ((2, 2), 1.1, False),
])  # fmt: skip
def test_matrices_with_skew_are_refused(tmp_path, cell, value, fine):
    K_33 = np.array([[480.0, 0, 350], [0, 470, 230], [0, 0, 1]])
    K_33[cell] = value
    np.savetxt(tmp_path / "c.txt", K_33)
    if fine:
        assert read_calibration(tmp_path / "c.txt", 480, 720)[0].tolist() == [480, 0, 350]
    else:
        with pytest.raises(ValueError, match="only zero-skew matrices"):
            read_calibration(tmp_path / "c.txt", 480, 720)


def test_sizes_after_scaling_the_shorter_side():
    assert [resized_shape(*shape) for shape in ((100, 150, 40), (150, 100, 40), (33, 50, 16), (1080, 1920, 480))] == [
        (40, 60), (60, 40), (16, 24), (480, 853),
    ]  # fmt: skip
    ramp = np.tile(np.array([0, 100, 200, 40], np.uint8)[None, :, None], (4, 1, 3))
    assert resize_image(ramp, 4, 4) is ramp
    assert resize_image(ramp, 4, 2)[0, :, 0].tolist() == [50, 120] == resize_image(ramp, 2, 2)[0, :, 0].tolist()
    assert resize_image(ramp, 8, 8)[0, :, 0].tolist() == [0, 25, 75, 125, 175, 160, 80, 40]
    # An area counts only where both sides shrink, or stay.
    assert resize_image(ramp, 4, 1)[0, 0, 0] == 85 and resize_image(ramp, 8, 1)[0, 0, 0] == 150
    across = ramp.transpose(1, 0, 2)
    assert resize_image(across, 1, 4)[0, 0, 0] == 85 and resize_image(across, 1, 8)[0, 0, 0] == 150


def test_which_samples_and_pixels_are_measured(tmp_path, monkeypatch):
    """Evenly spread with both ends; of images every fourth row and column."""
    section = tmp_path / "train_sim"
    for name in ("rgb", "init"):
        (section / name).mkdir(parents=True)
    for index in range(7):
        torch.save(torch.full((3, 1, 1), 10.0**index), section / "init" / f"{index}.dat")
        image_HW3 = np.full((9, 9, 3), 255, np.uint8)
        image_HW3[::4, ::4] = 51 * (index % 2)
        Image.fromarray(image_HW3).save(section / "rgb" / f"{index}.png")
    monkeypatch.setattr(scenes, "_MAX_SAMPLES", 3)
    bars = []
    monkeypatch.setattr(scenes, "tqdm", lambda chosen, **of: bars.append(of) or chosen)
    measured = scenes.measure([section])
    assert measured.mean_coord[0] == pytest.approx((1 + 1e3 + 1e6) / 3) and measured.rgb_mean[0] == pytest.approx(0.2 / 3)
    assert bars == [{"desc": "scene statistics", "unit": "image", "leave": False}]


def test_constants_that_files_and_statistics_are_made_with():
    assert (scenes._MAX_SAMPLES, scenes._MIN_STD, VERSION, HEADER_BYTES) == (200, 0.02, 1, 128)
    assert FOLDERS == ("rgb", "poses", "calibration", "init", "depth", "normal", "semantics")


def test_packing_says_what_it_wrote_and_what_it_cannot(plane_section, tmp_path, capsys):
    section = plane_section(2)
    assert pack_command([str(section)]) == 0
    path = section / "packed.npy"
    assert capsys.readouterr().out == f"wrote {path} ({path.stat().st_size / 1e9:.2f} GB)\n"
    stored = np.load(path)
    assert stored.dtype == np.uint8 and stored.ndim == 1 and len(stored) == path.stat().st_size - 128
    (tmp_path / "bare" / "rgb").mkdir(parents=True)
    for folder, message in ((tmp_path / "none", "no such section: "), (tmp_path / "bare", "has no labels")):
        assert pack_command([str(folder)]) == 2 and message in capsys.readouterr().err
