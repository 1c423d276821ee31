"""The published benchmark, end to end on look-alikes of its raw data: set-up, splits, chunks, check, training and test."""

import importlib.util
import os
import re
import shutil

import cv2
import numpy as np
import pytest
import torch

from datagen.__main__ import main as datagen_main
from datagen.benchmark import geocentric, labels, samples, split
from datagen.benchmark.command import chunk_main, setup_main
from datagen.benchmark.geocentric import SCENES
from datagen.benchmark.lookalike import LookalikeSettings, build_lookalike
from datagen.demo.settings import WorldSettings
from dataloader.check.run import check_data
from dataloader.images import decode_image
from dataloader.section import SectionDataset
from evaluation.options import parse_options
from evaluation.run import evaluate
from geometry.cameras import project
from geometry.grid import cell_centres
from geometry.poses import invert_pose, transform_points
from tests.training.small_runs import SMALL, options
from training.loop import train

WORLD = WorldSettings(texel_m=1.35, surface_factor=1)
SECTIONS = {"train_sim": 9, "val_sim": 1, "train_sim_plus_drone_sim": 13, "train_sim_plus_oop_drone_sim": 13} | {
    f"{part}_{mode}_{domain}": count
    for part, count in (("train", 4), ("val", 1), ("test", 5))
    for mode in ("drone", "oop_drone")
    for domain in ("sim", "real")
}
FOLDERS = ("rgb", "poses", "calibration", "init", "depth", "normal", "semantics")


@pytest.fixture(scope="module")
def raws(tmp_path_factory):
    """Raw look-alikes of both scenes; urbanscape's photos are twice as large as its renders, its points float64."""
    folder = tmp_path_factory.mktemp("raw")
    common = {"num_images": 10, "num_photos": 10, "height": 64, "world": WORLD}
    return {
        "urbanscape": build_lookalike(LookalikeSettings("urbanscape", photo_scale=2, points="float64", **common), folder),
        "naturescape": build_lookalike(LookalikeSettings("naturescape", **common), folder),
    }


@pytest.fixture(scope="module")
def places(tmp_path_factory, raws):
    """Set-up of both scenes: folder of the data sets, folder of the split records."""
    datasets, records = tmp_path_factory.mktemp("datasets"), tmp_path_factory.mktemp("records")
    for scene, raw in raws.items():
        assert set_up(scene, raw, datasets / scene, records) == 0
    return datasets, records


def set_up(scene, raw, output, records, *more):
    arguments = ["--dataset_dir", raw, "--output_dir", output, "--record_dir", records, "--workers", "2", *more]
    return setup_main(scene, __file__, list(map(str, arguments)))


def stems(section, folder="rgb"):
    return sorted(path.stem for path in (section / folder).iterdir())


def contents(scene_dir):
    paths = sorted(path for path in scene_dir.rglob("*") if path.is_file() and path.name != "setup.json")
    return {str(path.relative_to(scene_dir)): path.read_bytes() for path in paths}


def reprojection_px(section, index=0):
    """Distances of the labels from their cells' centres [N], pixels."""
    sample = SectionDataset([section], "coord", 64)[index]
    valid_hw = sample.label.valid_1hw[0]
    centres_2hw = cell_centres(*valid_hw.shape, sample.label.stride, dtype=torch.float64)
    p_cam_13N = transform_points(
        invert_pose(sample.label.world_from_cam_44)[None], sample.label.map_Chw[:, valid_hw].double()[None]
    )
    xy_12N, _ = project(p_cam_13N, sample.label.K_33[None])
    return torch.linalg.vector_norm(xy_12N[0] - centres_2hw[:, valid_hw], dim=0)


def test_sections_sizes_and_stems_are_the_published_ones(places, raws):
    datasets, records = places
    urbanscape, naturescape = (
        {path.name: len(stems(path)) for path in (datasets / scene).iterdir() if path.is_dir() and path.name[0] != "."}
        for scene in ("urbanscape", "naturescape")
    )
    assert urbanscape == SECTIONS
    winter = {f"{part}_winter_drone_{d}": n for part, n in (("train", 4), ("val", 1), ("test", 5)) for d in ("sim", "real")}
    assert naturescape == SECTIONS | winter
    for section in (path for path in (datasets / "urbanscape").iterdir() if path.is_dir()):
        assert all(stems(section, folder) == stems(section) for folder in FOLDERS)
    raw_names = sorted(path.name for path in (raws["urbanscape"] / "urbanscape-LHS").glob("*_img.png"))
    both = stems(datasets / "urbanscape" / "train_sim") + stems(datasets / "urbanscape" / "val_sim")
    assert sorted(f"{stem}_img.png" for stem in both) == raw_names
    assert stems(datasets / "urbanscape" / "val_drone_real") == stems(datasets / "urbanscape" / "val_drone_sim")


def test_splits_are_one_sequence_of_the_legacy_generator(places):
    """By hand: np.random.seed(2021) once, a permutation per mode in the published order."""
    datasets, records = places
    np.random.seed(2021)
    for mode in ("lhs", "drone", "oop_drone", "winter_drone"):
        order = np.random.permutation(np.arange(10))
        sizes = [9, 1] if mode == "lhs" else [4, 1, 5]
        prefix = "" if mode == "lhs" else f"{mode}_"
        parts = ("train", "val") if mode == "lhs" else ("train", "val", "test")
        all_stems = sorted(s for part in parts for s in stems(datasets / "naturescape" / f"{part}_{prefix}sim"))
        start, lines = 0, []
        for part, size in zip(parts, sizes, strict=True):
            expected = [all_stems[i] for i in sorted(order[start : start + size])]
            assert stems(datasets / "naturescape" / f"{part}_{prefix}sim") == expected
            lines += [f"Subset section ***{part}***", *expected]
            start += size
        assert (records / f"naturescape_{mode}_split.txt").read_text().splitlines() == lines


def test_a_recorded_mode_is_obeyed_and_draws_nothing(tmp_path):
    names = {mode: [f"{mode}{k}" for k in range(10)] for mode in ("lhs", "drone", "oop_drone")}
    recorded = {"train": names["lhs"][:1], "val": names["lhs"][1:]}
    split.write_split_record(split.record_path(tmp_path, "s", "lhs"), recorded)
    parts = split.splits(names, "s", tmp_path)
    first = np.random.RandomState(2021).permutation(np.arange(10))
    assert parts["lhs"] == recorded and parts["drone"]["train"] == [f"drone{i}" for i in sorted(first[:4])]
    with pytest.raises(ValueError, match="1 stems are in no part: drone10"):
        split.splits(names | {"drone": [*names["drone"], "drone10"]}, "s", tmp_path)
    assert split.splits(names, "s", tmp_path) == parts


def test_sizes_round_down_and_the_last_part_takes_the_rest():
    generator = np.random.RandomState(0)
    stems_ = [f"{k:04d}" for k in range(3158)]
    sizes = [len(part) for part in split.draw(stems_, {"a": 0.4, "b": 0.1, "c": 0.5}, generator).values()]
    assert sizes == [1263, 315, 1580]
    assert len(split.draw(list("abcdefghi"), {"a": 0.4, "b": 0.1, "c": 0.5}, generator)["b"]) == 0


def test_poses_are_ecef_minus_the_origin_with_the_attitude_in_the_local_frame():
    """A camera that looks straight down with its top to the north sees east to its right; axes by geodetic formulas."""
    scene = SCENES["urbanscape"]
    assert scene.origin_3 == pytest.approx([4367787.6, 502828.5, 4605498.2], abs=1500)  # within the scene's town
    lon, lat = np.deg2rad([6.5668, 46.5191])
    up = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    east = np.array([-np.sin(lon), np.cos(lon), 0])
    pose_44 = geocentric.world_from_camera(scene.origin_3 + 100 * up, np.array([0.0, -90.0, 0.0]), scene)
    assert pose_44[:3, 3] == pytest.approx(100 * up, abs=1e-6)
    assert np.stack((east, np.cross(east, up), -up), 1) == pytest.approx(pose_44[:3, :3], abs=1e-9)
    level_44 = geocentric.world_from_camera(scene.origin_3, np.array([90.0, 0.0, 0.0]), scene)
    assert level_44[:3, 2] == pytest.approx(east, abs=1e-9) and level_44[:3, 1] == pytest.approx(-up, abs=1e-9)


def test_raw_poses_come_back():
    scene, enu_44 = SCENES["naturescape"], np.eye(4)
    enu_44[:3, :3], enu_44[:3, 3] = geocentric.enu_from_camera(37.0, -62.0, 4.0), [1500.0, -800.0, 130.0]
    raw_6 = geocentric.raw_pose(enu_44, scene)
    back_44 = geocentric.world_from_camera(raw_6[:3], raw_6[3:], scene)
    rotation_33 = geocentric.ecef_from_enu(scene.lon_deg, scene.lat_deg)
    assert back_44[:3, :3] == pytest.approx(rotation_33 @ enu_44[:3, :3], abs=1e-9)
    assert back_44[:3, 3] == pytest.approx(rotation_33 @ enu_44[:3, 3], abs=1e-6)
    assert raw_6[3:] == pytest.approx([37.0, -62.0, 4.0], abs=0.05) and abs(raw_6[3] - 37) > 1e-3


def test_labels_lie_exactly_on_their_cells_at_both_strides(places, raws, tmp_path):
    """The raw index k is the pixel coordinate k: coarse cells are exact, full-size ones by the moved principal point."""
    datasets, records = places
    assert reprojection_px(datasets / "urbanscape" / "train_sim").max() < 2e-3
    calibrations = datasets / "urbanscape" / "train_sim" / "calibration"
    assert {path.read_text() for path in calibrations.iterdir()} == {"64.0\n"}
    assert set_up("urbanscape", raws["urbanscape"], tmp_path / "urbanscape-fullsize", records, "--stride", "1") == 0
    section = tmp_path / "urbanscape-fullsize" / "train_sim"
    assert next((section / "calibration").iterdir()).read_text() == "64.0 64.0 48.5 32.5\n"
    assert torch.load(next((section / "init").iterdir())).shape == (3, 64, 96)
    assert reprojection_px(section).max() < 2e-3
    photo = SectionDataset([section.parent / "test_drone_real"], "coord", 64)[0]  # twice as large as its labels' image
    assert photo.label.stride == 1 and photo.label.map_Chw.shape == (3, 64, 96)
    for path in (section / "calibration").iterdir():
        path.write_text("64.0\n")  # as published
    assert reprojection_px(section).median() == pytest.approx(0.5**0.5, abs=1e-3)


def test_the_published_calibration_of_the_published_size():
    assert labels.calibration_text(720, 720, 480, 8) == "480.0\n"
    assert labels.calibration_text(720, 720, 480, 1) == "480.0 480.0 360.5 240.5\n"
    assert labels.calibration_text(720, 5472, 3648, 8) == "3648.0\n"
    map_HW = np.arange(480 * 720).reshape(480, 720)
    grid_hw = labels.on_grid(map_HW, 8)
    assert grid_hw.shape == (60, 90) and grid_hw[0, 0] == 4 * 720 + 4 and grid_hw[2, 3] == 20 * 720 + 28


def test_labels_keep_their_nodata_and_depths_follow_the_first_channel():
    origin_3 = np.array([10.0, 20.0, 30.0])
    points_hw3 = np.array([[[-1.0, -1, -1], [15, 20, 35], [9, 19, 29]]], np.float32)
    coords_3hw = labels.scene_coordinates(points_hw3, origin_3)
    assert coords_3hw[:, 0].T.tolist() == [[-1, -1, -1], [5, 0, 5], [-1, -1, -1]]
    p_cam_3hw = labels.camera_points(coords_3hw, np.eye(4))
    assert labels.depths(coords_3hw, p_cam_3hw).tolist() == [[-1, 5, -1]]
    # A valid -1 is told from nodata by its last bit.
    assert labels.stored(np.array([-1.0, -1.0]), np.array([True, False])).tolist() == [
        np.nextafter(np.float32(-1), np.float32(0)),
        -1,
    ]


def test_normals_are_those_of_a_plane_towards_the_camera(monkeypatch):
    y, x = np.mgrid[-5:6, -5:6] * 2.0
    p_cam_3hw = np.stack((x, y, 50 + 0.5 * x))
    coords_3hw = p_cam_3hw.copy()
    coords_3hw[:, 0, 0] = -1
    normal_3hw = labels.normals(coords_3hw, p_cam_3hw)
    assert (normal_3hw[:, 0, 0] == -1).all()
    expected_3 = np.array([0.5, 0, -1]) / np.hypot(0.5, 1)
    assert pytest.approx(np.tile(expected_3, (100, 1)), abs=1e-9) == normal_3hw[:, 1:, 1:].reshape(3, -1).T


def test_photos_larger_than_their_labels_work(places):
    """192 x 128 px photos with the 8 x 12 labels of 96 x 64 px renders."""
    datasets, _ = places
    section = datasets / "urbanscape" / "test_drone_real"
    photo = next((section / "rgb").iterdir())
    assert decode_image(photo).shape == (128, 192, 3)
    assert (section / "calibration" / f"{photo.stem}.txt").read_text() == "128.0\n"
    assert reprojection_px(section).max() < 2e-3
    sample = SectionDataset([section], "coord", 64)[0]
    assert sample.label.stride == 8 and torch.equal(sample.label.K_33, sample.view.K_33)
    semantics = SectionDataset([section], "semantics", 64)[0]
    assert semantics.label.map_Chw.shape == (1, 64, 96) and semantics.label.K_33[0, 0] == 64


def test_photos_are_links_to_the_jpg_of_their_render(places, raws):
    datasets, _ = places
    for path in (datasets / "naturescape" / "train_winter_drone_real" / "rgb").iterdir():
        target = os.readlink(path)
        assert path.suffix == ".png" and not os.path.isabs(target)
        photo = path.resolve()
        assert photo.parent.name == "naturescape-winter-real" and photo.stem == "_".join(path.stem.split("_")[2:])
    label = next((datasets / "naturescape" / "test_drone_real" / "init").iterdir())
    assert os.readlink(label) == f"../../test_drone_sim/init/{label.name}"
    merged = datasets / "naturescape" / "train_sim_plus_drone_sim"
    assert stems(merged) == sorted(stems(merged.parent / "train_sim") + stems(merged.parent / "train_drone_sim"))


@pytest.mark.parametrize("scene", ["urbanscape", "naturescape"])
def test_the_check_finds_nothing_wrong(places, scene):
    report = check_data(places[0] / scene, workers=1)
    assert report.errors == 0 and not [f for f in report.findings if f.kind not in ("low-coverage", "normal-mismatch")]


def test_a_set_up_ends_with_the_check_of_what_it_wrote(raws, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(labels, "calibration_text", lambda width, *label_size_and_stride: f"{width / 3}\n")
    assert set_up("naturescape", raws["naturescape"], tmp_path / "naturescape", tmp_path / "records") == 2
    said = r"error: what was written is wrong: test_drone_real/\S+: focal-length: .*0.5 times what the labels say"
    assert re.search(said, capsys.readouterr().err)


def test_float32_points_stay_within_a_quarter_of_a_metre(places, raws):
    datasets, _ = places
    section = datasets / "naturescape" / "train_sim"
    off_px = reprojection_px(section)
    # Half a grain of 0.5 m at 64 px of focal length and about 100 m.
    assert 0.01 < off_px.median() < 0.3


def test_a_moved_data_set_keeps_its_links_and_a_copy_has_none(raws, places, tmp_path):
    records = places[1]
    both = tmp_path / "both"
    shutil.copytree(raws["urbanscape"], both / "raw")
    assert set_up("urbanscape", both / "raw", both / "urbanscape", records) == 0
    shutil.move(both, tmp_path / "moved")
    broken = [path for path in (tmp_path / "moved" / "urbanscape").rglob("*") if path.is_symlink() and not path.exists()]
    assert not broken
    assert set_up("urbanscape", raws["urbanscape"], tmp_path / "urbanscape", records, "--copy") == 0
    assert not [path for path in (tmp_path / "urbanscape").rglob("*") if path.is_symlink()]
    ours, linked = contents(tmp_path / "urbanscape"), contents(places[0] / "urbanscape")
    drop = {name for name in ours if name.endswith("section.json")}
    assert {n: c for n, c in ours.items() if n not in drop} == {n: c for n, c in linked.items() if n not in drop}


def test_without_3d_labels_and_with_small_class_maps(raws, places, tmp_path):
    more = ("--ignore_3d_label", "--force_semantics_downsampling")
    assert set_up("urbanscape", raws["urbanscape"], tmp_path / "urbanscape", places[1], *more) == 0
    for name, count in SECTIONS.items():
        section = tmp_path / "urbanscape" / name
        assert sorted(path.name for path in section.iterdir() if path.is_dir()) == [
            "calibration",
            "poses",
            "rgb",
            "semantics",
        ]
        assert len(stems(section)) == count
    small = np.load(next((tmp_path / "urbanscape" / "train_sim" / "semantics").iterdir()))
    assert small.shape == (8, 12) and small.dtype == np.uint8


def test_a_killed_set_up_goes_on_and_ends_the_same(raws, places, tmp_path, monkeypatch, capsys):
    output, made = tmp_path / "naturescape", []
    real = samples.write_render

    def stops(scene, options, job, shop):
        if len(made) == 25:
            raise KeyboardInterrupt
        made.append(job.key)
        real(scene, options, job, shop)

    monkeypatch.setattr(samples, "write_render", stops)
    assert set_up("naturescape", raws["naturescape"], output, places[1]) == 130
    assert [path.name for path in output.iterdir() if not path.name.startswith(".")] == []
    assert set_up("naturescape", raws["naturescape"], output, places[1], "--stride", "1") == 2
    assert "holds an unfinished set-up with other options: stride 8 (--overwrite" in capsys.readouterr().err
    again = []
    monkeypatch.setattr(samples, "write_render", lambda *args: (again.append(args[2].key), real(*args)))
    assert set_up("naturescape", raws["naturescape"], output, places[1]) == 0
    assert len(again) <= 40 - 23 and len(set(again) | set(made)) == 40
    assert not (output / ".setup").exists()
    assert contents(output) == contents(places[0] / "naturescape")


def test_changed_input_is_noticed_and_only_that_is_made_again(raws, places, tmp_path, monkeypatch, caplog):
    raw, output = shutil.copytree(raws["urbanscape"], tmp_path / "raw"), tmp_path / "urbanscape"
    assert set_up("urbanscape", raw, output, places[1]) == 0
    made = []
    real = samples.write_render
    monkeypatch.setattr(samples, "write_render", lambda *args: (made.append(args[2].sample.stem), real(*args)))
    assert set_up("urbanscape", raw, output, places[1]) == 0 and made == []
    first, second = sorted((raw / "urbanscape-LHS").glob("*_pc.npy"))[2:4]
    points = np.load(first)
    points[points != -1] += 1.0
    np.save(first, points)
    os.utime(second, (0, 0))  # touched, not changed
    assert set_up("urbanscape", raw, output, places[1]) == 0
    assert made == [first.name.removesuffix("_pc.npy")]
    section = output / ("train_sim" if made[0] in stems(output / "train_sim") else "val_sim")
    changed = torch.load(section / "init" / f"{made[0]}.dat")
    before = torch.load(places[0] / "urbanscape" / section.name / "init" / f"{made[0]}.dat")
    valid = before != -1
    assert valid.any() and (changed - before)[valid].numpy() == pytest.approx(1.0, abs=1e-3)
    next((output / "val_drone_sim" / "depth").iterdir()).unlink()
    made.clear()
    assert set_up("urbanscape", raw, output, places[1]) == 0 and len(made) == 30
    assert stems(output / "val_drone_sim", "depth") == stems(output / "val_drone_sim")


def test_copied_labels_of_photos_follow_their_render(raws, places, tmp_path):
    raw, output = shutil.copytree(raws["urbanscape"], tmp_path / "raw"), tmp_path / "urbanscape"
    assert set_up("urbanscape", raw, output, places[1], "--copy") == 0
    path = next(raw.rglob("*-inplace_00000_*_pc.npy"))
    np.save(path, np.load(path) + 1)
    before = contents(output)
    assert set_up("urbanscape", raw, output, places[1], "--copy") == 0
    changed = {name for name, content in contents(output).items() if before[name] != content}
    stem = path.name.removesuffix("_pc.npy")
    part = next(part for part in ("train", "val", "test") if stem in stems(output / f"{part}_drone_sim"))
    labels_of = {f"{part}_drone_{d}/{folder}/{stem}.dat" for d in ("real", "sim") for folder in ("init", "depth")}
    assert (
        labels_of <= changed and contents(output)[min(labels_of)] == contents(output)[min(labels_of).replace("real", "sim")]
    )


def test_other_options_are_refused_by_name_and_overwritten_on_request(raws, places, tmp_path, capsys):
    output = tmp_path / "urbanscape"
    assert set_up("urbanscape", raws["urbanscape"], output, places[1]) == 0
    assert set_up("urbanscape", raws["urbanscape"], output, places[1], "--stride", "1") == 2
    assert "with other options: stride 8 (--overwrite replaces them)" in capsys.readouterr().err
    assert set_up("urbanscape", raws["urbanscape"], output, places[1], "--stride", "1", "--overwrite") == 0
    assert torch.load(next((output / "train_sim" / "depth").iterdir())).shape == (64, 96)
    (tmp_path / "by_hand" / "train_sim").mkdir(parents=True)
    assert set_up("urbanscape", raws["urbanscape"], tmp_path / "by_hand", places[1]) == 2
    assert "by hand" in capsys.readouterr().err


def remove(pattern):
    def change(raw):
        next(path for path in sorted(raw.rglob("*")) if path.match(pattern)).unlink()

    return change


def damage(pattern, function):
    def change(raw):
        path = sorted(path for path in raw.rglob("*") if path.match(pattern))[0]
        np.save(path, function(np.load(path)))

    return change


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda raw: shutil.rmtree(raw / "urbanscape-LHS"), "no such folder: .*urbanscape-LHS"),
        (lambda raw: shutil.rmtree(raw / "matching"), "no such folder: .*matching"),
        (remove("*LHS_00002_pc.npy"), "urbanscape-LHS lacks 1 files: urbanscape-LHS_00002_pc.npy"),
        (remove("*/urbanscape-LHS_poses.npy"), r"one \*_poses.npy is needed"),
        (remove("*-inplace-real/*.JPG"), r"no \*.JPG for 1 renders: urbanscape-inplace_00000_DJI_1001_img.png"),
        (remove("*inplace_00000*img.png"), "1 photos have no render: DJI_1001"),
        (lambda raw: shutil.rmtree(next(raw.rglob("*outofplace-real"))), "has no sibling urbanscape-outofplace-real"),
        (damage("*LHS_poses.npy", lambda poses: poses[:5]), "there are only 5 poses"),
        (damage("*LHS_poses.npy", lambda poses: poses[:, :3]), r"finite numbers \[n, 6\] are needed .*found \[10, 3\]"),
        (damage("*LHS_00001_pc.npy", lambda points: points[:-8]), r"96 x 64 px, its points are \[56, 96, 3\]"),
        (damage("*LHS_00001_pc.npy", lambda points: points * np.nan), "00001_pc.npy holds NaN"),
        (damage("*LHS_00001_semantics.npy", lambda codes: codes + 40), r"LAS codes .* have no class"),
        (lambda raw: (raw / "urbanscape-LHS/urbanscape-LHS_00001_pc.npy").write_bytes(b"x"), "cannot read .*00001_pc"),
    ],
)  # fmt: skip
def test_bad_raw_data_are_one_clear_line(raws, tmp_path, capsys, change, said):
    raw = shutil.copytree(raws["urbanscape"], tmp_path / "raw")
    change(raw)
    assert set_up("urbanscape", raw, tmp_path / "urbanscape", tmp_path) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert re.search(said, lines[0]), lines[0]
    assert not any((tmp_path / "urbanscape").glob("*_sim"))


def test_chunks_are_nested_links_by_one_permutation(places, tmp_path, capsys):
    section = places[0] / "urbanscape" / "train_sim"
    arguments = ["--section_dir", str(section), "--output_dir", str(tmp_path), "--chunk_size", "0.25", "0.5", "0.75"]
    assert chunk_main(arguments) == 0
    chunks = {size: stems(tmp_path / f"train_sim_chunk_{size}") for size in ("0.25", "0.50", "0.75")}
    np.random.seed(2021)
    order = np.random.permutation(np.arange(9))
    for size, found in chunks.items():
        count = int(np.ceil(float(size) * 9))
        assert found == [stems(section)[i] for i in sorted(order[:count])]
        for folder in FOLDERS:
            assert stems(tmp_path / f"train_sim_chunk_{size}", folder) == found
    assert set(chunks["0.25"]) < set(chunks["0.50"]) < set(chunks["0.75"])
    link = next((tmp_path / "train_sim_chunk_0.25" / "rgb").iterdir())
    assert link.is_symlink() and not os.path.isabs(os.readlink(link)) and decode_image(link).shape == (64, 96, 3)
    assert chunk_main(arguments) == 0
    (tmp_path / "train_sim_chunk_0.25" / "rgb" / link.name).unlink()
    assert chunk_main(arguments) == 2
    assert "with other content" in capsys.readouterr().err
    assert chunk_main([*arguments, "--overwrite"]) == 0 and link.exists()
    assert chunk_main(["--section_dir", str(tmp_path)]) == 2
    assert chunk_main([*arguments, "--chunk_size", "1.5"]) == 2


def test_the_commands_in_datasets_run_from_anywhere(repository, raws, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("setup_urbanscape", "setup_naturescape", "setup_section_split"):
        spec = importlib.util.spec_from_file_location(name, repository / "datasets" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.__doc__ and callable(getattr(module, "setup_main", None) or module.chunk_main)


def test_the_lookalike_command_and_its_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("datagen.benchmark.lookalike._WORLD", WORLD)
    arguments = ["lookalike", "--scene", "urbanscape", "--output_dir", str(tmp_path), "--num_images", "2",
                 "--num_photos", "2", "--height", "32"]  # fmt: skip
    assert datagen_main(arguments) == 0
    lhs = tmp_path / "urbanscape" / "urbanscape-LHS"
    points = np.load(lhs / "urbanscape-LHS_00001_pc.npy")
    assert points.dtype == np.float32 and points.shape == (32, 48, 3)
    # On the ground around the scene's origin: some hundred metres from it, 6,370 km from the Earth's centre.
    valid = (points != -1).all(2)
    assert np.linalg.norm(points[valid] - SCENES["urbanscape"].origin_3, axis=1).max() < 1000
    assert cv2.imread(str(lhs / "urbanscape-LHS_00000_img.png"), cv2.IMREAD_UNCHANGED).shape == (32, 48, 4)
    assert np.load(lhs / "urbanscape-LHS_poses.npy").shape == (2, 6)
    assert datagen_main(arguments) == 2
    assert "already there" in capsys.readouterr().err


@pytest.mark.parametrize("scene", ["urbanscape", "naturescape"])
def test_one_epoch_of_training_and_a_test_on_photos(places, tmp_path, scene):
    small = [*SMALL, "--epochs", "1", "--image_height", "64", "--batch_size", "4", "--real_data_chunk", "1"]
    train(options(tmp_path, *small, "--sim_data_chunk", "0", "--datasets_dir", places[0], scene=scene))
    weights = next(tmp_path.rglob("model.net"))
    arguments = [scene, "--task", "coord", "--section", "test_drone_real", "--network_in", weights, "--device", "cpu"]
    evaluate(parse_options([*map(str, arguments), "--datasets_dir", str(places[0])]), torch.device("cpu"))
    report = (weights.parent / f"results_{weights.name}_task_coord.txt").read_text()
    assert "==================== Evaluation on section test_drone_real ====================" in report
    assert re.search(r"Median Error: [\d.]+ deg, [\d.]+ m", report)
