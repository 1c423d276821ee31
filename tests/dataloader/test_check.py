"""`python -m dataloader.check`: the kinds of broken data sets, each found, named and placed; and right data pass."""

import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dataloader.check.__main__ import main
from dataloader.check.run import check_data
from dataloader.check.sample import SampleFiles, inspect
from tests.conftest import write_plane_section
from tests.kept import assert_kept

LABELS = ("init", "depth", "normal")
FLIPPED_YZ = torch.tensor([1.0, -1.0, -1.0])[:, None, None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A scene of seven sections without a fault; photos are darker and noisier than their renders."""
    scene = tmp_path_factory.mktemp("data") / "scene"
    write_plane_section(scene / "train_sim", 6, seed=1)
    write_plane_section(scene / "val_sim", 1, seed=2)
    for number, part in enumerate(("train", "test")):
        write_plane_section(scene / f"{part}_drone_sim", 3, seed=10 + number)
        shutil.copytree(scene / f"{part}_drone_sim", scene / f"{part}_drone_real")
        rng = np.random.default_rng(number)
        for path in sorted((scene / f"{part}_drone_real" / "rgb").iterdir()):
            photo = 0.7 * cv2.imread(str(path)) + rng.normal(0, 8, (64, 96, 3))
            cv2.imwrite(str(path), photo.clip(0, 255).astype(np.uint8))
    return scene


@pytest.fixture
def scene(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "scene")


def each(section, folder):
    return sorted((section / folder).iterdir())


def one(section, folder, number=1):
    return each(section, folder)[number]


def change_labels(section, folder, function, which=slice(None)):
    for path in each(section, folder)[which]:
        torch.save(function(torch.load(path)), path)


def change_poses(section, function, which=slice(None)):
    for path in each(section, "poses")[which]:
        np.savetxt(path, function(np.loadtxt(path)))


def calibrate(section, text):
    for path in each(section, "calibration"):
        path.write_text(text)


def with_cells(label, value, rows=slice(0, 1)):
    changed = label.clone()
    changed[..., rows, :] = value
    return changed


def world_normals(section):
    for label, pose in zip(each(section, "normal"), each(section, "poses"), strict=True):
        R = torch.from_numpy(np.loadtxt(pose)[:3, :3]).float()
        torch.save(torch.einsum("ij,jhw->ihw", R, torch.load(label)), label)


def distances(section):
    for label, coords, pose in zip(*(each(section, name) for name in ("depth", "init", "poses")), strict=True):
        centre = torch.from_numpy(np.loadtxt(pose)[:3, 3]).float()
        torch.save((torch.load(coords) - centre[:, None, None]).norm(dim=0), label)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def in_degrees(T):
    wrong = T.copy()
    wrong[:3, :3] = Rotation.from_euler("zyx", Rotation.from_matrix(T[:3, :3]).as_euler("zyx", degrees=True)).as_matrix()
    return wrong


def moved(x, y, z):
    shift = np.zeros((4, 4))
    shift[:3, 3] = x, y, z
    return shift


def exchange(a, b):
    a_bytes, b_bytes = a.read_bytes(), b.read_bytes()
    a.write_bytes(b_bytes)
    b.write_bytes(a_bytes)


def save_codes(section, function):
    path = one(section, "semantics")
    np.save(path, function(np.load(path)))


SIM, REAL, TEST, TEST_SIM = "train_sim", "train_drone_real", "test_drone_real", "test_drone_sim"
FIRST, SECOND, PHOTO = f"{SIM}/view_000", f"{SIM}/view_001", f"{REAL}/view_001"

# What is done to which section, the kind that must be named, whom it must name, and what must be said.
BROKEN = {
    "no calibration folder": (SIM, lambda s: shutil.rmtree(s / "calibration"), "missing-folder", SIM, "no folder calib"),
    "no labels": (SIM, lambda s: [shutil.rmtree(s / n) for n in (*LABELS, "semantics")], "missing-folder", SIM, "no labels"),
    "a pose file is missing": (SIM, lambda s: one(s, "poses").unlink(), "missing-file", SECOND, "lacks 1 files"),
    "an image is missing": (SIM, lambda s: one(s, "rgb").unlink(), "missing-file", SECOND, "rgb lacks 1 files"),
    "two images of a stem": (
        SIM, lambda s: shutil.copy(one(s, "rgb"), s / "rgb" / "view_001.jpg"), "two-files", SECOND,
        "view_001.jpg",
    ),
    "a file of another kind": (SIM, lambda s: (s / "init" / "a.npy").touch(), "stray-file", f"{SIM}/a", "is not of .dat"),
    "a link to nothing": (
        SIM, lambda s: (one(s, "rgb").unlink(), os.symlink("gone.png", s / "rgb" / "view_001.png")),
        "broken-link", SECOND, "points at gone.png",
    ),
    "an empty section": (
        SIM, lambda s: [path.unlink() for path in s.rglob("*") if path.is_file()], "empty-section", SIM, "holds no sample",
    ),
    "a truncated image": (SIM, lambda s: truncate(one(s, "rgb")), "unreadable-image", SECOND, "cannot decode"),
    "a black image": (
        SIM, lambda s: cv2.imwrite(str(one(s, "rgb")), np.zeros((64, 96, 3))), "blank-image", SECOND, "one colour",
    ),
    "a pose of three rows": (
        SIM, lambda s: np.savetxt(one(s, "poses"), np.eye(4)[:3]), "bad-pose", SECOND, "4 rows of 4 numbers",
    ),
    "a pose with NaN": (SIM, lambda s: change_poses(s, lambda T: T * np.nan), "bad-pose", FIRST, "NaN"),
    "a scaled rotation": (
        SIM, lambda s: change_poses(s, lambda T: T @ np.diag([2, 2, 2, 1.0])), "bad-pose", FIRST, "not a camera-to-",
    ),
    "a mirrored rotation": (
        SIM, lambda s: change_poses(s, lambda T: T @ np.diag([-1.0, 1, 1, 1])), "bad-pose", FIRST, "its rotation mirrors",
    ),
    "a calibration of words": (SIM, lambda s: calibrate(s, "f 64"), "bad-calibration", FIRST, "table of numbers"),
    "a focal length in millimetres": (
        SIM, lambda s: calibrate(s, "8.8"), "implausible-focal-length", FIRST, "159.2 degrees over 96 px",
    ),
    "a principal point outside": (
        SIM, lambda s: calibrate(s, "64 64 480 32"), "bad-calibration", FIRST, "480 32 is outside",
    ),
    "a damaged label": (SIM, lambda s: truncate(one(s, "init")), "unreadable-label", SECOND, "cannot be read"),
    "labels of another grid": (
        SIM, lambda s: change_labels(s, "init", lambda c: c[:, :, :-1]), "label-shape", FIRST, r"\[8, 11\]",
    ),
    "labels with channels last": (
        SIM, lambda s: change_labels(s, "init", lambda c: c.permute(1, 2, 0)), "label-shape", FIRST, r"\[3, h, w\]",
    ),
    "labels in double precision": (
        SIM, lambda s: change_labels(s, "depth", torch.Tensor.double), "label-type", FIRST, "float64",
    ),
    "NaN instead of -1": (
        SIM, lambda s: change_labels(s, "init", lambda c: with_cells(c, torch.nan)), "label-not-finite", FIRST,
        "12 cells are NaN",
    ),
    "almost only nodata": (
        SIM, lambda s: change_labels(s, "init", lambda c: with_cells(c, -1, slice(0, 8))), "mostly-nodata", FIRST,
        "100 % of the cells",
    ),
    "another nodata in depths": (
        SIM, lambda s: change_labels(s, "depth", lambda c: with_cells(c, -1)), "nodata-mismatch", FIRST,
        "12 % of the cells .* init and depth",
    ),
    "coordinates without an origin": (
        SIM, lambda s: (change_labels(s, "init", lambda c: c + 4.4e6), change_poses(s, lambda T: T + moved(*3 * [4.4e6]))),
        "far-coordinates", FIRST, "float32 keeps 0.5 m",
    ),
    "an unknown class": (
        SIM, lambda s: save_codes(s, lambda c: np.where(c == 9, 5, c)), "class-code", SECOND, "LAS codes 5 have no",
    ),
    "classes as real numbers": (
        SIM, lambda s: save_codes(s, np.float32), "label-type", SECOND, "float32 values, LAS codes as uint8",
    ),
    "classes on the label grid": (
        SIM, lambda s: save_codes(s, lambda c: c[4::8, 4::8]), "coarse-classes", SECOND,
        r"\[8, 12\] classes, one a label cell",
    ),
    "classes of another size": (
        SIM, lambda s: save_codes(s, lambda c: c[:, :-8]), "label-shape", SECOND, r"\[64, 88\]",
    ),
    "world-to-camera poses": (
        SIM, lambda s: change_poses(s, np.linalg.inv), "world-to-camera", FIRST, "the pose were world-to-camera",
    ),
    "OpenGL axes": (
        SIM, lambda s: change_poses(s, lambda T: T @ np.diag([1.0, -1, -1, 1])), "opengl-axes", FIRST,
        r"lie behind the camera, at most 2.0 px is right \(6 of 6 .* \(OpenGL\)",
    ),
    "a focal length before resizing": (
        SIM, lambda s: calibrate(s, "160"), "focal-length", FIRST, r"2.5 times .*160 px .* 64 px by",
    ),
    "a calibration of the full-size photo": (
        SIM, lambda s: calibrate(s, "128 128 96 64"), "calibration-of-another-size", FIRST, "192 px in width",
    ),
    "a principal point at the corner": (
        SIM, lambda s: calibrate(s, "64 64 0 0"), "principal-point", FIRST, "the image's centre, not 0 0",
    ),
    "swapped camera axes": (
        SIM, lambda s: change_poses(s, lambda T: T @ np.eye(4)[:, [1, 2, 0, 3]]), "camera-axes", FIRST, "were swapped",
    ),
    "swapped coordinates": (
        SIM, lambda s: change_labels(s, "init", lambda c: c[[1, 0, 2]]), "world-axes", FIRST, "pose's y, x and z",
    ),
    "mirrored label maps": (
        SIM, lambda s: change_labels(s, "init", lambda c: c.flip(2)), "mirrored-labels", FIRST, "right to left",
    ),
    "degrees for radians": (
        SIM, lambda s: change_poses(s, in_degrees), "degrees-for-radians", FIRST, "degrees were taken for radians",
    ),
    "another origin": (
        SIM, lambda s: change_poses(s, lambda T: T + moved(500, 0, -40)), "wrong-origin", FIRST, "by -500 0 40 m",
    ),
    "a pose of another image": (
        SIM, lambda s: exchange(one(s, "poses", 2), one(s, "poses", 5)), "wrong-pose", f"{SIM}/view_002",
        "Another pose fits the labels",
    ),
    "labels of nothing": (
        SIM, lambda s: change_labels(s, "init", lambda c: c[:, torch.randperm(8)][:, :, torch.randperm(12)]),
        "labels-of-another-view", FIRST, "No usual mistake",
    ),
    "distances instead of depths": (SIM, distances, "depth-mismatch", FIRST, "distances from the camera"),
    "depths in millimetres": (
        SIM, lambda s: change_labels(s, "depth", lambda d: 1000 * d), "depth-mismatch", FIRST, "millimetres",
    ),
    "negative depths": (SIM, lambda s: change_labels(s, "depth", lambda d: -d), "depth-range", FIRST, "not positive"),
    "normals of the world": (SIM, world_normals, "normal-frame", FIRST, "in the world frame"),
    "normals that point away": (
        SIM, lambda s: change_labels(s, "normal", lambda n: -n), "normal-frame", FIRST, "point away from the camera",
    ),
    "normals with OpenGL's axes": (
        SIM, lambda s: change_labels(s, "normal", lambda n: n * FLIPPED_YZ), "normal-frame", FIRST, "axes are flipped",
    ),
    "normals that are too long": (
        SIM, lambda s: change_labels(s, "normal", lambda n: 255 * n), "normal-length", FIRST, "255 long",
    ),
    "a photo without its render": (
        REAL, lambda s: [one(s, n, 0).unlink() for n in ("rgb", "poses", "calibration", *LABELS, "semantics")],
        "pair-stems", f"{REAL}/view_000", "in only one of",
    ),
    "a photo's pose is not its render's": (
        REAL, lambda s: change_poses(s, lambda T: T + moved(0, 0.05, 0), slice(1, 2)), "pair-poses", PHOTO,
        "poses 0.05 m and 0 degrees apart",
    ),
    "a photo's labels are not its render's": (
        REAL, lambda s: change_labels(s, "depth", lambda d: d + 0.01, slice(1, 2)), "pair-labels", PHOTO, ": depth",
    ),
    "renders in place of photos": (
        REAL, lambda s: shutil.copy(one(s.parent / "train_drone_sim", "rgb"), one(s, "rgb")), "pair-images", PHOTO,
        "is the render itself",
    ),
    "exchanged photos": (
        REAL, lambda s: exchange(one(s, "rgb", 0), one(s, "rgb", 2)), "photo-of-another-view", f"{REAL}/view_00[02]",
        "looks like the render of view_00[20]",
    ),
    "a test photo in training": (
        SIM, lambda s: shutil.copy(one(s.parent / TEST, "rgb"), one(s, "rgb", 3)), "same-image", f"{TEST}/view_001",
        "train_sim/view_003 is the same image",
    ),
    "a test pose in training": (
        SIM, lambda s: shutil.copy(one(s.parent / TEST, "poses"), one(s, "poses", 3)), "same-pose", f"{TEST}/view_001",
        "train_sim/view_003 has the same pose",
    ),
    "almost a test pose in training": (
        SIM, lambda s: (shutil.copy(one(s.parent / TEST, "poses"), one(s, "poses", 3)),
                        change_poses(s, lambda T: T + moved(0.1, 0, 0), slice(3, 4))),
        "near-pose", f"{TEST}/view_001", r"nearly the same pose \(0.1 m and 0 degrees off",
    ),
    "one image twice": (
        SIM, lambda s: shutil.copy(one(s, "rgb", 1), one(s, "rgb", 4)), "repeated-image", f"{SIM}/view_004", "as view_001",
    ),
    "a test flight elsewhere": (
        TEST, lambda s: [(change_poses(p, lambda T: T + moved(2000, 0, 0)),
                          change_labels(p, "init", lambda c: c + torch.tensor([2000.0, 0, 0])[:, None, None]))
                         for p in (s, s.parent / TEST_SIM)],
        "low-coverage", TEST, "see 0 % of the ground",
    ),
}  # fmt: skip


def test_a_whole_scene_has_no_finding(whole):
    report = check_data(whole, workers=1)
    assert report.findings == ()
    assert {name: figures["samples"] for name, figures in report.sections.items()} == {
        "test_drone_real": 3, "test_drone_sim": 3, "train_drone_real": 3, "train_drone_sim": 3, "train_sim": 6, "val_sim": 1,
    }  # fmt: skip
    assert report.sections["train_sim"]["sizes"] == ["96 x 64"] and report.sections["train_sim"]["focal_px"] == [64.0, 64.0]
    assert report.sections["train_sim"]["off_px"] < 1e-3 and report.sections["train_sim"]["nodata"] == 0


@pytest.mark.parametrize("name", BROKEN)
def test_every_kind_of_broken_data_is_found_and_named(scene, name):
    section, break_it, kind, place, said = BROKEN[name]
    torch.manual_seed(0)
    break_it(scene / section)
    report = check_data(scene, workers=1)
    of_kind = [finding for finding in report.findings if finding.kind == kind]
    assert of_kind, [(f.kind, f.place, f.text) for f in report.findings]

    assert any(re.fullmatch(place, f.place) and re.search(said, f.text) for f in of_kind), [
        (f.place, f.text) for f in of_kind
    ]
    said_of_all = [[f.kind, f.severity, f.place, f.text.replace(str(scene), "SCENE")] for f in report.findings]
    assert_kept("broken-data", said_of_all, part=name)
    # Nobody else's samples are called wrong.
    touched = {section, section.replace("_real", "_sim")} | {place.split("/")[0]}
    errors = [f for f in report.findings if f.severity == "error" and f.section not in touched | {TEST_SIM}]
    assert not errors, [(f.kind, f.place) for f in errors]


def test_one_bad_file_does_not_hide_another(scene):
    truncate(one(scene / SIM, "rgb", 0))
    truncate(one(scene / SIM, "init", 1))
    change_poses(scene / SIM, np.linalg.inv, slice(2, 3))
    (scene / "val_sim" / "depth" / "view_000.dat").write_bytes(b"")
    found = {(finding.kind, finding.place) for finding in check_data(scene, workers=1).findings}
    assert {
        ("unreadable-image", FIRST),
        ("unreadable-label", SECOND),
        ("world-to-camera", f"{SIM}/view_002"),
        ("unreadable-label", "val_sim/view_000"),
    } <= found


def test_a_few_samples_are_photos_with_their_renders(scene):
    """The rest is paired all the same; what a few training images see is not all that they all do."""
    for folder in ("rgb", "poses", "calibration", *LABELS, "semantics"):
        one(scene / REAL, folder, 0).unlink()
    assert [(f.kind, f.text) for f in check_data(scene, limit=1, workers=1).findings] == [
        ("pair-stems", "1 samples are in only one of train_drone_real and train_drone_sim: view_000")
    ]
    change_poses(scene / REAL, lambda T: T + moved(0, 0.05, 0), slice(0, 1))
    kinds = {(f.kind, f.place) for f in check_data(scene, limit=1, workers=1).findings if f.severity == "error"}
    assert kinds == {("pair-stems", f"{REAL}/view_000"), ("pair-poses", PHOTO)}


def test_processes_find_the_same(scene, monkeypatch):
    truncate(one(scene / SIM, "rgb", 0))
    change_poses(scene / SIM, np.linalg.inv, slice(2, 4))
    alone = check_data(scene, workers=1)
    monkeypatch.setattr("dataloader.check.run._MIN_FOR_PROCESSES", 1)
    together = check_data(scene, workers=2)
    assert together.findings == alone.findings and together.sections == alone.sections


def test_the_command_s_text_json_map_and_exit_status(scene, tmp_path, capsys):
    assert main([str(scene), "--workers", "1", "--json", str(tmp_path / "a.json"), "--map", str(tmp_path / "map.png")]) == 0
    assert "0 errors, 0 warnings in 19 samples" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["ok"] is True
    assert cv2.imread(str(tmp_path / "map.png")).shape[0] > 300
    change_labels(scene / SIM, "depth", torch.Tensor.double)
    assert main([str(scene), "--workers", "1"]) == 0
    assert main([str(scene), "--workers", "1", "--strict"]) == 1
    change_poses(scene / SIM, np.linalg.inv)
    capsys.readouterr()
    assert main([str(scene), "--workers", "1", "--json", "-"]) == 1
    out = json.loads(capsys.readouterr().out)
    assert out["ok"] is False and out["findings"][0]["kind"] == "world-to-camera" and len(out["findings"]) == 12
    assert main([str(scene / SIM), "--workers", "1", "--limit", "2"]) == 1
    text = capsys.readouterr().out
    assert "train_sim: 2 samples, 96 x 64, f 64 px" in text and "error world-to-camera: 2 times" in text


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["nowhere"], "no such folder: .*nowhere"),
        ([""], "is no section and holds none"),
        (["scene", "--sections", "other"], r"has no sections \['other'\]; present: \['test_drone_real'"),
        (["scene", "--limit", "0"], "--limit must be at least 1"),
        (["scene", "--workers", "0"], "--workers must be at least 1"),
        (["scene", "--workers", "1", "--json", "file/a.json"], "cannot write a.json into file: it is a file"),
        (["scene", "--workers", "1", "--map", "file/new/a.png"], "cannot write a.png into file/new: .*file is a file"),
    ],
)
def test_nothing_to_check_is_said(scene, tmp_path, monkeypatch, capsys, arguments, said):

    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    assert main([arguments[0] or "empty", *arguments[1:]]) == 2
    assert re.search(f"^error: .*{said}", capsys.readouterr().err, re.MULTILINE)


def test_a_map_that_cannot_be_drawn_loses_no_finding(scene, tmp_path, capsys):
    words = [str(scene), "--workers", "1", "--sections", "test_drone_real"]
    assert main([*words, "--map", str(tmp_path / "map.png"), "--json", str(tmp_path / "new/a.json")]) == 2
    said = capsys.readouterr()
    assert "test_drone_real: 3 samples" in said.out and "error: --map: there is no training section" in said.err
    assert json.loads((tmp_path / "new/a.json").read_text())["ok"] is True


def test_an_unforeseen_error_of_one_sample_is_a_finding_too(scene, monkeypatch):
    def explode(path):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("dataloader.check.sample.decode_image", explode)
    stem = one(scene / "train_sim", "rgb").stem
    seen = inspect(SampleFiles("train_sim", stem, {"rgb": one(scene / "train_sim", "rgb")}))
    assert [(f.kind, f.text) for f in seen.findings] == [("cannot-be-checked", "RuntimeError: a fault of ours")]
