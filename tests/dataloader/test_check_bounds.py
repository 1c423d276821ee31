"""From where on the check of a data set speaks, and what it says there: bounds, texts and maps, without files."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from matplotlib import pyplot

from dataloader.check import across, coverage, pairing, run, sample, surfaces
from dataloader.check.across import geometry_findings, leak_findings, pair_findings, part_of, unpaired_findings
from dataloader.check.coverage import Coverage, coverage_of, draw
from dataloader.check.finding import Finding
from dataloader.check.run import Report
from dataloader.check.sample import Seen
from dataloader.check.surfaces import check_depth, check_normals
from geometry.poses import rotation_xy
from tests.figures import described
from tests.kept import assert_kept

EYE_33 = torch.eye(3, dtype=torch.float64)


def kinds(found):
    return [kind for kind, _ in found]


# ---- depths and normals of the same cells


def points_3hw(h=6, w=8, z=100.0, stride=8.0):
    """Points of a level plane seen from above, metres."""
    x, y = torch.meshgrid(torch.arange(w) - w / 2 + 0.5, torch.arange(h) - h / 2 + 0.5, indexing="xy")
    return torch.stack((x * stride / 64 * z, y * stride / 64 * z, torch.full((h, w), z))).double()


def depths(function, z=100.0):
    p_3hw = points_3hw(z=z)
    valid_hw = torch.ones(p_3hw.shape[1:], dtype=torch.bool)
    return list(check_depth(p_3hw, function(p_3hw)[None], valid_hw, EYE_33))


@pytest.mark.parametrize("z, most", [(100.0, 1.0), (10.0, 0.5)])
def test_depths_may_be_off_by_a_hundredth_or_half_a_metre(z, most):
    assert not depths(lambda p: p[2] + 0.99 * most, z) and not depths(lambda p: p[2] - 0.99 * most, z)
    for found in (depths(lambda p: p[2] + 1.01 * most, z), depths(lambda p: p[2] - 1.01 * most, z)):
        assert kinds(found) == ["depth-mismatch"]


def test_half_a_metre_itself_is_right():
    assert not depths(lambda p: p[2] + 0.5, 10.0)


def test_usual_units_of_depths_are_named():
    said = {
        "distances": depths(lambda p: p.norm(dim=0)), "negative": depths(lambda p: -p[2]),
        "inverse": depths(lambda p: 1 / p[2]), "millimetres": depths(lambda p: 1000 * p[2]),
        "centimetres": depths(lambda p: 100 * p[2]), "kilometres": depths(lambda p: p[2] / 1000),
        "feet": depths(lambda p: p[2] / 0.3048), "none": depths(lambda p: 1.5 * p[2]),
    }  # fmt: skip
    assert_kept("depth-units", said, exact=True)


def normals(turn_deg=0.0, *, length=1.0, away=0.0, function=None, h=12, w=10, slope=0.0, cam_from_world_33=EYE_33):
    p_3hw = points_3hw(h, w)
    p_3hw[2] += slope * p_3hw[0]
    turned_3 = rotation_xy(math.radians(turn_deg), 0.0)[:3, :3].double() @ torch.tensor([0.0, 0.0, -length]).double()
    normal_3hw = turned_3[:, None, None].expand(3, h, w).clone()
    inner = normal_3hw[:, 1:-1, 1:-1].reshape(3, -1).clone()
    inner[:, : round(away * inner.shape[1])] *= -1
    normal_3hw[:, 1:-1, 1:-1] = inner.view(3, h - 2, w - 2)
    normal_3hw = normal_3hw if function is None else function(normal_3hw)
    return list(check_normals(p_3hw, normal_3hw, torch.ones(h, w, dtype=torch.bool), cam_from_world_33))


def test_normals_may_be_off_by_forty_degrees_but_not_point_away():
    assert not normals() and not normals(39.0) and not normals(-39.0)
    assert normals(41.0) == [("normal-mismatch", "normals are 41 degrees off the surface of the scene coordinates")]
    assert not normals(away=0.2)
    away = [("normal-frame", "normals of many cells point away from the camera; towards it is meant")]
    assert normals(away=0.21) == away
    assert not normals(length=1.009) and not normals(length=0.991)
    assert normals(length=1.011) == [("normal-length", "normals are 1.01 long in the median, 1 is meant")]
    assert kinds(normals(length=0.989)) == ["normal-length"]


def test_usual_frames_of_normals_are_named():
    turn_33 = rotation_xy(0.9, 0.4)[:3, :3].double()

    def of_world(n_3hw):
        return torch.einsum("ji,jhw->ihw", turn_33, n_3hw)

    said = {
        "world": normals(function=of_world, cam_from_world_33=turn_33),
        "away": normals(function=torch.neg),
        "both": normals(function=lambda n: -of_world(n), cam_from_world_33=turn_33),
        "opengl": normals(
            slope=0.5, function=lambda n: (n * 0 + torch.tensor([0.5, 0, 1]).double()[:, None, None]) / 1.25**0.5
        ),
    }
    assert_kept("normal-frames", said)


def test_the_surface_between_neighbours_two_cells_apart():
    """Of a curved map with a hole: unit normals towards the camera; full-size cells are too close together."""
    h, w = 5, 6
    rows, columns = torch.meshgrid(torch.arange(h).double(), torch.arange(w).double(), indexing="ij")
    p_3hw = torch.stack((columns * 2, rows * 3, 50 + columns**2 - rows))
    normal_3hw = torch.stack((rows, columns, rows * columns))
    valid_hw = torch.ones(h, w, dtype=torch.bool)
    valid_hw[2, 4] = False
    surface_3N, label_3N, p_3N = surfaces._surface_normals(p_3hw, normal_3hw, valid_hw)
    # z = 50 + (x / 2)^2 - y / 3 has the normal (x / 2, -1 / 3, -1) towards the camera.
    expected_3N = torch.stack((p_3N[0] / 2, torch.full_like(p_3N[0], -1 / 3), -torch.ones_like(p_3N[0])))
    torch.testing.assert_close(surface_3N, expected_3N / expected_3N.norm(dim=0))
    places = {(r, c) for r in range(1, 4) for c in range(1, 5)} - {(1, 4), (3, 4), (2, 4), (2, 3)}
    assert {(int(y) // 3, int(x) // 2) for x, y in zip(p_3N[0], p_3N[1], strict=True)} == places
    assert {(int(r), int(c)) for r, c in zip(label_3N[0], label_3N[1], strict=True)} == places
    wide_3hw = points_3hw(9, 200)
    _, _, thinned_3N = surfaces._surface_normals(wide_3hw, wide_3hw, torch.ones(9, 200, dtype=torch.bool))
    assert thinned_3N.shape == (3, 3 * 98)


# ---- one sample


def seen(**values):
    return Seen("train_sim", "a", **values)


def said_of(one):
    return [(finding.kind, finding.text.rpartition("/")[2]) for finding in one.findings]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1099", []), ("1101", ["implausible-focal-length"]), ("17.48", []), ("17.46", ["implausible-focal-length"]),
        ("64 51.3 48 32", []), ("64 51.1 48 32", ["implausible-focal-length"]),
        ("64 79.9 48 32", []), ("64 80.1 48 32", ["implausible-focal-length"]),
        ("64 64 0 0", []), ("64 64 96 64", []), ("64 64 -1 32", ["bad-calibration"]), ("64 64 97 32", ["bad-calibration"]),
        ("64 64 48 -1", ["bad-calibration"]), ("64 64 48 65", ["bad-calibration"]),
    ],
)  # fmt: skip
def test_views_from_5_to_140_degrees_with_square_pixels(tmp_path, text, expected):
    (tmp_path / "a.txt").write_text(text)
    one = seen(size=(64, 96))
    sample._look_at_camera(one, {"calibration": tmp_path / "a.txt"})
    assert [kind for kind, _ in said_of(one)] == expected


def test_what_is_kept_of_an_image(tmp_path):
    """A thumbnail without mean and of length one, and whether it shows anything at all."""
    ramp_HW3 = np.tile(np.arange(72, dtype=np.uint8)[None, :, None], (48, 1, 3))
    for name, image_HW3 in (("ramp", ramp_HW3), ("flat", 100 + ramp_HW3 // 12), ("flatter", 100 + ramp_HW3 // 20)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image_HW3)
    ramp, flat, flatter = (seen() for _ in range(3))
    for one, name in ((ramp, "ramp"), (flat, "flat"), (flatter, "flatter")):
        sample._look_at_image(one, {"rgb": tmp_path / f"{name}.png"})
    assert ramp.size == (48, 72) and ramp.thumbnail.shape == (36 * 24,)
    expected_N = np.tile(np.arange(36.0) - 17.5, 24)
    np.testing.assert_allclose(ramp.thumbnail, expected_N / np.linalg.norm(expected_N), rtol=1e-5, atol=1e-7)
    assert flat.thumbnail is None and flatter.thumbnail is None and len({ramp.pixels, flat.pixels, flatter.pixels}) == 3
    assert said_of(flatter) == [("blank-image", "the image shows one colour (standard deviation 1.1)")]
    nothing = seen()
    sample._look_at_image(nothing, {})
    assert nothing.pixels == "" and nothing.size is None


def label_map(values_Chw, valid_hw=None):
    values_Chw = torch.as_tensor(values_Chw, dtype=torch.float64)
    return sample._Map(values_Chw, torch.ones(values_Chw.shape[1:], dtype=torch.bool) if valid_hw is None else valid_hw)


def test_nodata_and_rounding_of_coordinates(tmp_path):
    valid_hw = torch.zeros(10, 100, dtype=torch.bool)
    valid_hw[0] = True
    at_the_bound = seen()
    sample._look_at_coordinates(at_the_bound, label_map(torch.zeros(3, 10, 100), valid_hw), tmp_path / "a.dat")
    assert at_the_bound.nodata == pytest.approx(0.9) and not at_the_bound.findings
    valid_hw[0, 0] = False
    beyond = seen()
    sample._look_at_coordinates(beyond, label_map(torch.zeros(3, 10, 100), valid_hw), tmp_path / "a.dat")
    assert said_of(beyond)[-1:] == [("mostly-nodata", "a.dat are nodata")] and "90 % of" in beyond.findings[-1].text
    for metres, kind in ((131071.0, None), (131073.0, "coarse-coordinates"), (1.0e6, "coarse-coordinates"),
                         (1.1e6, "far-coordinates"), (-1.1e6, "far-coordinates")):  # fmt: skip
        one = seen()
        sample._look_at_coordinates(one, label_map(torch.full((3, 2, 2), metres)), tmp_path / "a.dat")
        assert [k for k, _ in said_of(one)] == ([] if kind is None else [kind]), metres


def test_codes_of_classes(tmp_path):
    codes = np.array([[2, 9, 200], [300, 1, 2]])
    for name, stored in (("flat", codes[0].astype(np.uint8)), ("wide", codes), ("real", codes[:, :2].astype(np.float32)),
                         ("fine", codes[:, :2][:1].astype(np.uint8))):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", stored)
    found = {}
    for name in ("flat", "wide", "real", "fine"):
        one = seen()
        sample._look_at_classes(one, tmp_path / f"{name}.npy")
        found[name] = [[f.kind, f.text.replace(str(tmp_path), "")] for f in one.findings]
        assert len(one.label_digests["semantics"]) == 32
    assert_kept("class-codes", found, exact=True)


def test_depths_of_zero_and_below_are_counted():
    one = seen()
    sample._look_at_depth_range(one, label_map([[[0.0, -2.5, 4.0, -9.0]]], torch.tensor([[True, True, True, False]])))
    assert said_of(one) == [("depth-range", "2 cells have a depth that is not positive, down to -2.5 m")]
    fine = seen()
    sample._look_at_depth_range(fine, label_map([[[1e-3, 4.0]]]))
    assert not fine.findings


def geometry(nodata_of_depths, h=10, w=20):
    p_3hw = points_3hw(h, w)
    valid_hw = torch.ones(h, w, dtype=torch.bool)
    other_hw = valid_hw.clone()
    other_hw.view(-1)[:nodata_of_depths] = False
    one = seen(world_from_cam_44=np.eye(4))
    sample._look_at_geometry(one, {"coord": label_map(p_3hw, valid_hw), "depth": label_map(p_3hw[2:], other_hw)}, {})
    return one


def test_nodata_may_differ_in_a_twentieth_of_the_cells():
    assert not geometry(10).findings
    assert said_of(geometry(11)) == [("nodata-mismatch", "6 % of the cells are nodata in only one of init and depth")]
    one = geometry(0)
    assert one.depth_m == 100.0 and one.ground_N3.shape == (50, 3)  # every fourth of 200: at most 64
    np.testing.assert_allclose(one.ground_N3[:2], points_3hw(10, 20).flatten(1)[:, [0, 4]].T)


# ---- across samples


def posed(section, stem, x=0.0, angle_rad=0.0, depth_m=100.0, **values):
    pose_44 = rotation_xy(angle_rad, 0.0).double().numpy().copy()
    pose_44[0, 3] = x
    return Seen(section, stem, world_from_cam_44=pose_44, depth_m=depth_m, **values)


@pytest.mark.parametrize(
    "x, angle_rad, kind",
    [
        (0.0, 0.0, "same-pose"), (0.9e-3, 0.9e-4, "same-pose"), (1.1e-3, 0.0, "near-pose"), (0.0, 1.1e-4, "near-pose"),
        (0.49, 0.0, "near-pose"), (0.51, 0.0, None), (0.3, 0.0099, "near-pose"), (0.3, 0.0101, None),
    ],
)  # fmt: skip
def test_poses_of_training_in_test_sections(x, angle_rad, kind):
    sections = {"train_sim": [posed("train_sim", "a", x, angle_rad)], "test_sim": [posed("test_sim", "b")]}
    found = leak_findings(sections)
    assert [f.kind for f in found] == ([] if kind is None else [kind])
    if found:
        assert found[0].place == "test_sim/b" and found[0].text.startswith("train_sim/a has ")
    sections["val_x"], sections["other"] = [posed("val_x", "c", depth_m=None)], [posed("other", "d")]
    assert {f.section for f in leak_findings(sections)} <= {"test_sim", "val_x"}


def test_of_several_poses_of_training_the_nearest_is_named():
    train = [posed("train_sim", name, x) for name, x in (("far", 0.4), ("near", 0.2), ("other", 5.0))]
    (found,) = leak_findings({"train_sim": train, "val_sim": [posed("val_sim", "v", 0.1)]})
    assert found.text == "train_sim/near has nearly the same pose (0.1 m and 0 degrees off)"


@pytest.mark.parametrize(
    "photo, kind",
    [
        (dict(x=0.9e-3), None), (dict(x=1.1e-3), "pair-poses"), (dict(angle_rad=0.9e-4), None),
        (dict(angle_rad=1.1e-4), "pair-poses"), (dict(K=64.6), None), (dict(K=64.7), "pair-calibrations"),
        (dict(K=63.3), "pair-calibrations"), (dict(pixels="p"), "pair-images"), (dict(labels="other"), "pair-labels"),
    ],
)  # fmt: skip
def test_photos_against_their_renders(photo, kind):
    def one(section, K=64.0, pixels="", labels="d", **values):
        return posed(section, "a", size=(64, 96), K_33=np.diag([K, K, 1.0]), pixels=pixels, label_digests={"init": labels},
                     **values)  # fmt: skip

    found = pair_findings({"x_real": [one("x_real", **photo)], "x_sim": [one("x_sim", pixels="p")]})
    assert [f.kind for f in found] == ([] if kind is None else [kind])
    assert all(f.place == "x_real/a" and f.text.endswith("(against x_sim)") for f in found)


def test_stems_without_a_partner_are_named_three_at_most():
    (found,) = unpaired_findings({"x_real": list("abcde"), "x_sim": ["e"]})
    assert (found.stem, found.text) == ("a", "4 samples are in only one of x_real and x_sim: a, b, c")
    assert not unpaired_findings({"x_real": ["a"]}) and not unpaired_findings({"x_sim": ["a"]})


def test_photos_that_look_like_another_render():
    def thumbs(section, angles_deg):
        turns_rad = np.radians(angles_deg)
        return [Seen(section, str(i), thumbnail=np.array([np.cos(a), np.sin(a)])) for i, a in enumerate(turns_rad)]

    def found(photos_deg, renders_deg):
        return pair_findings({"x_real": thumbs("x_real", photos_deg), "x_sim": thumbs("x_sim", renders_deg)})

    (one,) = found([0, 200], [85, 31])  # its own 85 degrees away: 0.087; the other one's 31 degrees: 0.857
    assert one.text == "the photo looks like the render of 1 (correlation 0.86), not like its own (0.09)"
    assert not found([0, 200], [84, 31])  # 0.105
    assert not found([0, 200], [85, 61]) and len(found([0, 200], [85, 59])) == 1  # 0.485 and 0.515
    assert not found([0], [85])


def test_names_of_parts_and_what_is_in_one_image():
    assert [part_of(name) for name in ("train_sim", "val_drone", "test", "trainer_x", "x_test")] == [
        "train", "val", "test", "", "",
    ]  # fmt: skip
    thumbnail = np.ones(4)
    twice = [Seen("train_sim", name, pixels=p, thumbnail=t) for name, p, t in (
        ("a", "1", thumbnail), ("b", "1", thumbnail), ("c", "", thumbnail), ("d", "", thumbnail),
        ("e", "2", None), ("f", "2", None),
    )]  # fmt: skip
    held_out = [Seen("val_sim", "v", pixels="1", thumbnail=thumbnail)]
    assert [(f.kind, f.place, f.text) for f in leak_findings({"val_sim": held_out, "train_sim": twice})] == [
        ("repeated-image", "train_sim/b", "the same image as a"),
        ("same-image", "val_sim/v", "train_sim/a is the same image"),
    ]  # fmt: skip
    assert not geometry_findings({"train_sim": twice})


# ---- the ground


def ground(section, xs, ys=(0.0,), depth_m=100.0, stem="a"):
    points = [(x, y, 0.0) for x in xs for y in ys]
    return Seen(section, stem, ground_N3=np.array(points, np.float32), depth_m=depth_m)


def test_the_share_of_the_ground_that_training_sees():
    """Cells of a fifth of the median depth: 20 m."""
    sections = {
        "train_sim": [ground("train_sim", (5, 25, 45), (5, 25))],
        "val_sim": [ground("val_sim", (5, 6, 25, 65, 85), (5,))],
        "test_sim": [ground("test_sim", (45, 65), (25,)), Seen("test_sim", "none")],
        "other": [ground("other", (500,), (5,))], "empty": [Seen("empty", "e")],
    }  # fmt: skip
    found = coverage_of(sections)
    assert found.cell_m == pytest.approx(20.0) and found.axes == ("x (m)", "y (m)")
    assert found.shares == {"val_sim": 0.5, "test_sim": 0.5} and set(found.cells) == {"train", "val", "test"}
    assert found.cells["train"].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
    assert not found.findings()
    assert [(f.kind, f.section, f.text) for f in Coverage(20.0, {"v": 0.49, "t": 0.5}, {}, ("", "")).findings()] == [
        ("low-coverage", "v", "training images see 49 % of the ground that these images see")
    ]
    assert coverage_of({"val_sim": sections["val_sim"]}) is None
    assert coverage_of({"train_sim": [ground("train_sim", (5,), depth_m=-1.0)]}) is None


def test_the_plan_of_a_scene_whose_z_is_not_up():
    rng = np.random.default_rng(0)
    flat_N3 = rng.normal(size=(400, 3)) * (50, 20, 1)
    for angle_deg, upright in ((36.0, True), (38.0, False)):  # a cosine of 0.8 is 36.9 degrees
        c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
        plan_32, axes = coverage._plan(flat_N3 @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]]) + 1000)
        assert axes == (("x (m)", "y (m)") if upright else ("along the ground's longest side (m)", "across it (m)"))
        assert plan_32.shape == (3, 2) and abs(plan_32[0, 0]) > 0.99 and abs(plan_32[1, 1]) > 0.7


def test_the_map_of_the_ground(monkeypatch, tmp_path):
    kept = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    cells = {"train": [[-1, 2], [0, 2], [0, 3]], "val": [[0, 2], [3, 2]], "test": [[0, 3], [2, 5]]}
    for parts in (cells, {"train": cells["train"]}):
        draw(Coverage(2.5, {}, {k: np.array(v) for k, v in parts.items()}, ("x (m)", "y (m)")), tmp_path / "map.png")
    assert_kept("ground-map", [described(figure) for figure in kept])
    assert (tmp_path / "map.png").stat().st_size > 5000


# ---- the report


def test_the_report_of_a_check(tmp_path):
    findings = [Finding("bad-pose", "train_sim", f"v{i}", f"text {i}") for i in range(5)]
    findings += [Finding("stray-file", "val_sim", "a", "b"), Finding("low-coverage", "val_sim", "", "c")]
    K_33 = np.diag([64.0, 64.0, 1.0])
    samples = [Seen("train_sim", "a", size=(64, 96), K_33=K_33, off_px=0.25, depth_m=81.234, nodata=0.125),
               Seen("train_sim", "b", size=(64, 96), K_33=2 * K_33, off_px=0.75, depth_m=90.0, nodata=0.25),
               Seen("train_sim", "c", size=(10, 20))]  # fmt: skip
    sections = {"train_sim": run._figures(samples), "val_sim": run._figures([])}
    ground = Coverage(3.0, {"val_sim": 0.256}, {}, ("x", "y"))
    full, bare = Report(tmp_path, sections, tuple(findings), ground), Report(tmp_path, {}, (), None)
    shown = [[r.errors, r.as_json() | {"folder": ""}, r.as_text()] for r in (full, bare)]
    assert_kept("check-report", shown, exact=True)


def test_how_many_processes_check(monkeypatch):
    asked = []
    monkeypatch.setattr(run, "DataLoader", lambda data, **options: asked.append(options) or [list(data)])
    monkeypatch.setattr(run, "inspect", lambda files: files)
    for count, workers in ((99, 4), (100, 4), (100, 1), (100, 50), (160, 3)):
        assert len(run._inspected(list(range(count)), workers)) == count
    assert [options["num_workers"] for options in asked] == [0, 4, 0, 12, 3] and asked[0]["batch_size"] == 8


def test_bounds_that_a_user_is_told():
    """Those that no test above comes near."""
    assert (across._EXPLAINED, across._MAX_PAIRS, across._NAMED) == (24, 3000, 3)
    assert (sample._BLANK_STD, sample._THUMBNAIL, sample._GROUND_POINTS) == (2.0, (36, 24), 64)
    assert (pairing._NAMED, run._SHOWN, run._CHUNK) == (5, 3, 8)
