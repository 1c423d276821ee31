"""Pairing, files of every supported form, and every problem named."""

from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dataloader.choice import training_sections
from dataloader.images import decode_image
from dataloader.labels import read_calibration, read_label, read_pose
from dataloader.scenes import PUBLISHED_SCENES, measure
from dataloader.section import SectionDataset, ViewDataset
from tasks import TASKS


def test_samples_come_sorted_by_stem(plane_section):
    dataset = SectionDataset([plane_section(3)], "coord", 64)
    assert [dataset[i].view.stem for i in range(3)] == [f"train_sim/view_00{i}" for i in range(3)]


def test_batched_loading_equals_single_loading(plane_section):
    dataset = SectionDataset([plane_section(3)], "coord", 64)
    for a, b in zip(dataset.__getitems__([2, 0]), (dataset[2], dataset[0])):
        assert a.view.stem == b.view.stem and a.index == b.index
        assert np.array_equal(a.view.image_HW3, b.view.image_HW3) and torch.equal(a.label.map_Chw, b.label.map_Chw)


@pytest.mark.parametrize("mode, suffix", [("L", ".png"), ("RGBA", ".png"), ("RGB", ".jpg"), ("L", ".jpg")])
def test_grey_and_rgba_images_become_rgb(tmp_path, mode, suffix):
    path = tmp_path / f"image{suffix}"
    Image.new(mode, (20, 10), 128 if mode == "L" else (128,) * len(mode)).save(path)
    image = decode_image(path)
    assert image.shape == (10, 20, 3) and image.dtype == np.uint8 and abs(int(image.mean()) - 128) <= 1


def test_channels_are_rgb(tmp_path):
    for suffix in (".png", ".jpg"):
        Image.new("RGB", (16, 16), (250, 10, 20)).save(tmp_path / f"red{suffix}")
        assert decode_image(tmp_path / f"red{suffix}")[8, 8].tolist() == pytest.approx([250, 10, 20], abs=6)


def test_a_jpg_behind_a_png_name_is_decoded_by_content(tmp_path):
    Image.new("RGB", (16, 16), (250, 10, 20)).save(tmp_path / "photo.jpg")
    (tmp_path / "photo.png").symlink_to(tmp_path / "photo.jpg")
    assert decode_image(tmp_path / "photo.png")[8, 8, 0] > 240


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("keep", [0, 4, 0.5, 0.98])
def test_truncated_images_are_refused(tmp_path, suffix, keep):
    path = tmp_path / f"image{suffix}"
    rng = np.random.default_rng(0)
    cv2.imwrite(str(path), rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(ValueError, match=str(path)):
        decode_image(path)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("480", [480, 480, 360, 240]),
        ("480 470 350 230", [480, 470, 350, 230]),
        ("480 0 350\n0 470 230\n0 0 1", [480, 470, 350, 230]),
    ],
)
def test_calibration_forms(tmp_path, text, expected):
    (tmp_path / "c.txt").write_text(text)
    K = read_calibration(tmp_path / "c.txt", 480, 720)
    assert [K[0, 0], K[1, 1], K[0, 2], K[1, 2]] == expected


@pytest.mark.parametrize("text", ["", "0", "-5", "1 2", "a b", "480 1 350\n0 470 230\n0 0 1", "1 2\n3"])
def test_bad_calibrations_are_named(tmp_path, text):
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(ValueError, match="c.txt"):
        read_calibration(tmp_path / "c.txt", 480, 720)


def test_a_pose_of_three_lines_is_named(tmp_path):
    (tmp_path / "p.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n")
    with pytest.raises(ValueError, match=r"p.txt must hold 4 rows of 4 numbers, found shape \(3, 4\)"):
        read_pose(tmp_path / "p.txt")


def test_everything_missing_is_named_at_once(plane_section):
    section = plane_section(4)
    (section / "poses" / "view_000.txt").unlink()
    (section / "init" / "view_002.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"poses/view_000.*init/view_002"):
        SectionDataset([section], "coord", 64)


def test_an_absent_section_names_those_present(plane_section):
    section = plane_section(1)
    with pytest.raises(FileNotFoundError, match=r"val_sim; present: \['train_sim'\]"):
        SectionDataset([section.parent / "val_sim"], "coord", 64)


@pytest.mark.parametrize("shape", [(5, 5), (16, 24), (8, 13), (63, 96)])
def test_a_label_of_the_wrong_size_is_named(plane_section, shape):
    section = plane_section(1)
    torch.save(torch.zeros(3, *shape), section / "init" / "view_000.dat")
    with pytest.raises(ValueError, match=r"view_000.dat has a map .*64 x 96.*\[8, 12\] .stride 8.*\[64, 96\] .stride 1"):
        SectionDataset([section], "coord", 64)[0]


def test_classes_on_the_coarse_grid_are_refused(plane_section):
    section = plane_section(1)
    np.save(section / "semantics" / "view_000.npy", np.full((8, 12), 2, np.uint8))
    with pytest.raises(ValueError, match=r"view_000.npy has a map of \[8, 12\].*needs \[64, 96\] \(stride 1\)$"):
        SectionDataset([section], "semantics", 64)[0]


@pytest.mark.parametrize("stride", [8, 1])
def test_the_stride_of_labels_is_recognised(plane_section, stride):
    for task, channels in (("coord", 3), ("depth", 1), ("normal", 3)):
        label = SectionDataset([plane_section(1, stride=stride)], task, 32, stride=stride)[0].label
        assert label.stride == stride and label.map_Chw.shape == (channels, 64 // stride, 96 // stride)
        assert label.valid_1hw.shape == (1, 64 // stride, 96 // stride) and label.valid_1hw.all()


def test_coarse_labels_are_refused_for_full_size_and_fine_ones_serve_both(plane_section):
    coarse, fine = plane_section(1), plane_section(1, name="scene-fullsize/train_sim", stride=1)
    with pytest.raises(ValueError, match="view_000.dat has one cell per 8 pixels.*`--fullsize`.*<scene>-fullsize"):
        SectionDataset([coarse], "depth", 64, stride=1)[0]
    assert SectionDataset([fine], "depth", 64, stride=8)[0].label.stride == 1
    assert SectionDataset([coarse], "semantics", 64, stride=8)[0].label.stride == 1


def test_hidden_files_of_other_systems_are_no_samples(plane_section):
    section = plane_section(2)
    for folder in ("rgb", "poses", "calibration", "init"):
        for name in ("._view_000.png", "._view_000.txt", "._view_000.dat", ".DS_Store", "Thumbs.db"):
            (section / folder / name).write_bytes(b"Mac OS X")
    dataset = SectionDataset([section], "coord", 64)
    assert dataset.stems == ["train_sim/view_000", "train_sim/view_001"]
    assert len(list(dataset)) == 2


@pytest.mark.parametrize(
    "folder, name", [("rgb", "view_001.jpg"), ("rgb", "view_001.PNG"), ("poses", "view_001.TXT"), ("init", "view_001.DAT")]
)
def test_two_files_of_one_stem_are_refused_by_name(plane_section, folder, name):
    section = plane_section(2)
    (section / folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"two files of one name in .*{folder}: .*view_001\.") as caught:
        SectionDataset([section], "coord", 64)
    assert name in str(caught.value)


def test_more_missing_files_than_fit_are_counted(plane_section):
    section = plane_section(8)
    for index in range(7):
        (section / "poses" / f"view_00{index}.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"poses/view_000, .*poses/view_004 and 2 more$"):
        SectionDataset([section], "coord", 64)


def test_absent_folders_and_empty_sections_are_named(plane_section):
    section = plane_section(1)
    with pytest.raises(ValueError, match="no section"):
        SectionDataset([], "coord", 64)
    with pytest.raises(ValueError, match="at least 16 px, got 15"):
        SectionDataset([section], "coord", 15)
    for file in section.rglob("*.*"):
        file.unlink()
    with pytest.raises(ValueError, match="train_sim is empty"):
        SectionDataset([section], "coord", 64)
    (section / "poses").rmdir()
    with pytest.raises(FileNotFoundError, match=r"lacks the folders \['poses'\]"):
        SectionDataset([section], "coord", 64)


def test_an_index_beyond_the_length_is_another_appearance_of_a_sample(plane_section):
    dataset = SectionDataset([plane_section(3)], "coord", 64)
    once, again = dataset[1], dataset[7]
    assert (once.index, again.index) == (1, 7) and once.view.stem == again.view.stem
    assert np.array_equal(once.view.image_HW3, again.view.image_HW3)


def test_photos_without_truth_are_loaded_as_those_of_sections(plane_section):
    section = plane_section(2, height=80, width=100)
    samples = SectionDataset([section], "coord", 40)
    K_33 = read_calibration(section / "calibration" / "view_000.txt", 80, 100)
    paths = sorted((section / "rgb").iterdir())
    views = ViewDataset([(paths[0], K_33), paths[1]], 40)
    assert len(views) == 2 and views.stems == ["rgb/view_000", "rgb/view_001"]
    for view, sample in zip(views, samples, strict=True):
        assert np.array_equal(view.image_HW3, sample.view.image_HW3) and view.image_HW3.shape == (40, 50, 3)
    assert torch.equal(views[0].K_33, samples[0].view.K_33) and views[0].K_33[0, 0] == 32
    assert views[1].K_33[:2].isnan().any()  # never a guess
    with pytest.raises(ValueError, match="no photo"):
        ViewDataset([], 40)
    with pytest.raises(ValueError, match="at least 16"):
        ViewDataset(paths, 8)


def test_an_unknown_class_code_is_an_error(plane_section):
    section = plane_section(1)
    np.save(section / "semantics" / "view_000.npy", np.full((64, 96), 5, np.uint8))
    with pytest.raises(ValueError, match=r"LAS codes \[5\]"):
        SectionDataset([section], "semantics", 64)[0]


def test_statistics_in_closed_form(tmp_path):
    """Two images of known labels and colours; hidden files and cells without data do not count."""
    section = tmp_path / "train_sim"
    for name in ("rgb", "init", "depth", "normal"):
        (section / name).mkdir(parents=True)
    for index, stem in enumerate("ab"):
        coords = torch.full((3, 8, 12), -1.0)
        coords[:, :, :6] = torch.tensor([10.0, 20.0, 30.0])[:, None, None] + 4.0 * index
        torch.save(coords, section / "init" / f"{stem}.dat")
        torch.save(torch.where(coords[0] == -1, -1.0, 100.0 + 50 * index), section / "depth" / f"{stem}.dat")
        normal_3 = torch.tensor([0.0, -0.6, -0.8])
        torch.save(normal_3[:, None, None].expand(3, 8, 12).clone(), section / "normal" / f"{stem}.dat")
        Image.new("RGB", (96, 64), (255 * index, 51, 102)).save(section / "rgb" / f"{stem}.png")
    (section / "init" / "._a.dat").write_bytes(b"finder")
    (section / "rgb" / "._a.png").write_bytes(b"finder")
    before = sorted(tmp_path.rglob("*"))
    measured = measure([section])
    assert measured.mean_coord == pytest.approx((12, 22, 32)) and measured.coord_spread == pytest.approx(2)
    assert measured.mean_depth == pytest.approx(125) and measured.depth_spread == pytest.approx(25)
    assert measured.mean_normal == pytest.approx((-np.pi / 2, np.arctan2(-0.8, 0.6)))
    assert measured.rgb_mean == pytest.approx((0.5, 0.2, 0.4)) and measured.rgb_std == pytest.approx((0.5, 0.02, 0.02))
    assert measured.grey_mean == pytest.approx((0.299 / 2 + 0.587 * 0.2 + 0.114 * 0.4,))
    assert measured.grey_std == pytest.approx((0.299 / 2,))
    assert sorted(tmp_path.rglob("*")) == before  # nothing is kept that could outlive the data


def test_statistics_need_scene_coordinates(plane_section):
    section = plane_section(1)
    torch.save(torch.full((3, 8, 12), -1.0), section / "init" / "view_000.dat")
    with pytest.raises(ValueError, match="no valid scene coordinate in .*train_sim"):
        measure([section])
    with pytest.raises(ValueError, match="no init.*labels .*val_sim"):
        measure([section.parent / "val_sim"])


def test_statistics_without_depth_normals_or_images_are_neutral(tmp_path):
    section = tmp_path / "train_sim"
    (section / "init").mkdir(parents=True)
    torch.save(torch.tensor([1.0, 2.0, 3.0])[:, None, None].expand(3, 8, 12).clone(), section / "init" / "a.dat")
    measured = measure([section])
    assert (measured.mean_depth, measured.depth_spread) == (1.0, 0.0)
    assert measured.mean_normal == pytest.approx((0.0, -np.pi / 2))
    assert measured.rgb_mean == (0.5, 0.5, 0.5) and measured.grey_mean == pytest.approx((0.5,))
    assert measured.rgb_std == pytest.approx((0.02, 0.02, 0.02)) and measured.grey_std == pytest.approx((0.02,))


def test_published_scenes_have_published_constants():
    colours = {
        "rgb_mean": (0.4245, 0.4375, 0.3836),
        "rgb_std": (0.1823, 0.1701, 0.1854),
    }
    assert asdict(PUBLISHED_SCENES["urbanscape"]) == {
        "mean_coord": (-29.34, 184.17, 91.96), "coord_spread": 52.5, "mean_depth": 136.24, "depth_spread": 43.1,
        "mean_normal": (-1.0454, -0.9858), **colours, "grey_mean": (0.4308,), "grey_std": (0.1724,),
    }  # fmt: skip
    assert asdict(PUBLISHED_SCENES["naturescape"]) == {
        "mean_coord": (-455.934, 417.50, 520.31), "coord_spread": 84.3, "mean_depth": 241.47, "depth_spread": 58.8,
        "mean_normal": (-0.7943, -0.9986), **colours, "grey_mean": (0.4084,), "grey_std": (0.1404,),
    }  # fmt: skip
    # The spread is the root mean square of the published standard deviations of the axes.
    for scene, deviations in (("urbanscape", (46.4, 63.7, 45.4)), ("naturescape", (61.7, 100.4, 86.2))):
        assert PUBLISHED_SCENES[scene].coord_spread == pytest.approx(np.sqrt(np.mean(np.square(deviations))), abs=0.06)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no label"),
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(200)),
        lambda path: torch.save(Image.new("L", (2, 2)), path),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["empty", "text", "truncated", "zip", "code", "folder"],
)
@pytest.mark.parametrize("task", ["coord", "semantics"])
def test_labels_that_cannot_be_read_are_named(tmp_path, task, damage):
    path = tmp_path / f"a{TASKS[task].label_suffix}"
    torch.save(torch.zeros(3, 8, 12), path)
    damage(path)
    with pytest.raises(ValueError, match=f"label file .*{path.name} cannot be read: "):
        read_label(path, TASKS[task])


@pytest.mark.parametrize(
    "chosen, expected",
    [
        (dict(sim_data_chunk=1, real_data_chunk=0), ["train_sim"]),
        (dict(sim_data_chunk=0.5, real_data_chunk=0), ["train_sim_chunk_0.50"]),
        (dict(sim_data_chunk=0, real_data_chunk=1), ["train_drone_sim", "train_drone_real"]),
        (dict(sim_data_chunk=0, real_data_chunk=0.25, real_only=True), ["train_drone_real_chunk_0.25"]),
        (
            dict(sim_data_chunk=1, real_data_chunk=1, real_data_domain="out_of_place"),
            ["train_sim", "train_oop_drone_sim", "train_oop_drone_real"],
        ),
    ],
)
def test_sections_of_a_choice(tmp_path, chosen, expected):
    choice = {"real_only": False, "real_data_domain": "in_place", **chosen}
    assert [s.name for s in training_sections(tmp_path, **choice)] == expected


def test_test_sections_are_never_chosen_for_training(tmp_path):
    for sim in (0, 0.5, 1):
        for real in (0, 0.5, 1):
            for domain in ("in_place", "out_of_place"):
                if sim or real:
                    names = training_sections(
                        tmp_path, sim_data_chunk=sim, real_data_chunk=real, real_only=False, real_data_domain=domain
                    )
                    assert all(section.name.startswith("train_") for section in names)


@pytest.mark.parametrize("chunks", [(1.5, 0.0), (0.0, 1.5), (-0.1, 1.0), (1.0, -0.1)])
def test_chunks_are_shares(tmp_path, chunks):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got"):
        training_sections(
            tmp_path, sim_data_chunk=chunks[0], real_data_chunk=chunks[1], real_only=False, real_data_domain="in_place"
        )
