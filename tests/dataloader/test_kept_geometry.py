"""What usual mistakes look like, and where the geometry check looks: every candidate pose, calibration and sentence."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dataloader import geometry_check, geometry_mistakes
from dataloader.geometry_mistakes import UNEXPLAINED, explain
from dataloader.labels import LabelCamera
from dataloader.sighting import Sighting, sighting_of
from geometry.cameras import intrinsics_matrix
from geometry.poses import invert_pose, rotation_xy, rotation_z
from tests.kept import assert_kept

POSE_44 = rotation_xy(0.2, -0.1) @ rotation_z(0.7)
POSE_44[:3, 3] = torch.tensor([5.0, -7.0, 90.0], dtype=torch.float64)
K_33 = intrinsics_matrix(60.0, 66.0, 50.0, 30.0)


def sighting(cells=24, *, pose_44=POSE_44, seed=0, height=64, width=96, stem="s/a") -> Sighting:
    """Points that lie on their cells with POSE_44 and K_33, of any depth."""
    rng = np.random.default_rng(seed)
    xy_2N = torch.from_numpy(rng.uniform((0.0, 0.0), (width, height), (cells, 2)).T.copy())
    rays_3N = torch.linalg.inv(K_33) @ torch.cat((xy_2N, torch.ones(1, cells, dtype=torch.float64)))
    p_cam_3N = rays_3N * torch.from_numpy(rng.uniform(50, 100, cells))
    return Sighting(stem, POSE_44[:3, :3] @ p_cam_3N + POSE_44[:3, 3:], xy_2N, pose_44, K_33, height, width)


def test_every_usual_mistake_in_its_order():
    found = list(geometry_mistakes._mistakes(sighting()))
    digest = [[m.kind, m.text, m.world_from_cam_44 @ torch.tensor([1.0, 20, 300, 1]).double(), m.K_33.sum(1)] for m in found]
    assert_kept("mistakes", digest)
    principal = replace(sighting(), K_33=intrinsics_matrix(60.0, 66.0, 48.9, 32.9))  # 1.8 px from the centre
    kinds = [m.kind for m in geometry_mistakes._calibrations(principal, POSE_44, "")]
    assert kinds == ["calibration-of-another-size", "focal-length"]
    odd = replace(principal, K_33=intrinsics_matrix(60.0, 66.0, 49.4, 32.4), width_px=97, height_px=63)
    assert "principal-point" not in [m.kind for m in geometry_mistakes._calibrations(odd, POSE_44, "")]


def test_every_confusion_of_units():
    R_33 = Rotation.from_euler("zyx", [-20, 35, 50], degrees=True).as_matrix()
    assert_kept(
        "confusions", [[text, made_33 @ [1.0, 20.0, 300.0]] for text, made_33 in geometry_mistakes._confusions(R_33)]
    )
    assert [b.tolist() for b in geometry_mistakes._branches(np.array([-10.0, 20.0, -30.0]))] == [
        [-10, 20, -30], [-10, 20, 330], [350, 20, -30], [350, 20, 330],
    ]  # fmt: skip


def test_turns_map_axes_onto_axes():
    turns = [R_44[:3, :3] for R_44 in geometry_mistakes._turns()]
    assert len(turns) == 23 and len(list(geometry_mistakes._turns(mirrored=True))) == 47
    assert all(torch.linalg.det(R_33) == pytest.approx(1) for R_33 in turns)
    names = [geometry_mistakes._axes(R_44) for R_44 in geometry_mistakes._turns(mirrored=True)]
    assert len(set(names)) == 47 and "x, y and z" not in names
    assert names[:2] == ["x, y and -z", "x, -y and z"] and names[-1] == "-z, -y and -x"


@pytest.mark.parametrize(
    "turn_deg, shift, kind",
    [(0.45, (30, 0, 0), "wrong-origin"), (0.55, (30, 0, 0), "wrong-pose"), (40.0, (0, 0, 0), "wrong-pose")],
)
def test_what_a_fitted_pose_says(turn_deg, shift, kind):
    stated_44 = POSE_44 @ rotation_z(np.radians(turn_deg))
    stated_44[:3, 3] += torch.tensor(shift, dtype=torch.float64)
    (found,) = geometry_mistakes._fitted_explanation(sighting(pose_44=stated_44)).items()
    assert found[0] == kind
    assert_kept("fitted-poses", found, part=f"{turn_deg} {shift}")


def test_a_fit_that_is_none(monkeypatch):
    one = sighting()
    assert (
        geometry_mistakes._fitted_pose(replace(one, xy_px_2N=one.xy_px_2N[:, :2], p_world_3N=one.p_world_3N[:, :2])) is None
    )
    torch.testing.assert_close(geometry_mistakes._fitted_pose(one), POSE_44, rtol=1e-6, atol=1e-4)
    rng = torch.Generator().manual_seed(0)
    noise = replace(one, p_world_3N=50 * torch.randn(3, 24, generator=rng, dtype=torch.float64))
    assert geometry_mistakes._fitted_explanation(noise) == {} and explain([noise]) is UNEXPLAINED
    monkeypatch.setattr(geometry_mistakes.cv2, "solvePnP", lambda *a, **k: (True, np.zeros((3, 1)), np.full((3, 1), np.nan)))
    assert geometry_mistakes._fitted_pose(one) is None
    monkeypatch.setattr(geometry_mistakes.cv2, "solvePnP", lambda *a, **k: (False, np.zeros((3, 1)), np.ones((3, 1))))
    assert geometry_mistakes._fitted_pose(one) is None


def test_one_shift_for_all_or_a_cameras_own():
    def moved(*shifts):
        stated = [POSE_44.clone() for _ in shifts]
        for pose_44, x in zip(stated, shifts, strict=True):
            pose_44[0, 3] += x
        return [sighting(pose_44=pose_44, seed=i, stem=f"s/{i}") for i, pose_44 in enumerate(stated)]

    assert explain(moved(400.0)).kind == "wrong-origin"
    assert explain(moved(400.0, 400.0, 419.0)).kind == "wrong-origin"
    for shifts in ((400, 419, 381), (10.0, 10.9, 9.1)):  # a twentieth, or a metre
        assert geometry_mistakes._is_one_shift(moved(*shifts)), shifts
    for shifts in ((400, 421, 379), (10.0, 11.1, 8.9)):
        assert not geometry_mistakes._is_one_shift(moved(*shifts)), shifts
    apart = explain(moved(400.0, 700.0, 900.0, 50.0))
    assert apart.kind == "wrong-positions" and apart.text.startswith("The labels fit when every camera is moved")


def test_the_most_usual_mistake_of_most_images():
    inverse, fine = invert_pose(POSE_44), POSE_44 @ rotation_z(0.5)
    wrong = [sighting(pose_44=pose_44, seed=i) for i, pose_44 in enumerate((fine, inverse, inverse))]
    found = explain(wrong)
    assert found.kind == "world-to-camera" and found.text.endswith(
        "its inverse: with that put right, the distance is 0.00 px"
    )


def test_distances_tolerances_and_thinning():
    one = sighting(601)
    assert one.tolerance_px == 2.0 and replace(one, height_px=300, width_px=400).tolerance_px == 2.5
    assert one.as_stated_px < 1e-9 and one.is_right
    assert one.thinned().p_world_3N.shape == (3, 201) and sighting(300).thinned().p_world_3N.shape == (3, 300)
    torch.testing.assert_close(one.thinned().xy_px_2N, one.xy_px_2N[:, ::3])
    moved = replace(one, xy_px_2N=one.xy_px_2N + torch.tensor([[3.0], [4.0]]).double())
    assert moved.as_stated_px == pytest.approx(5.0) and not moved.is_right
    assert replace(one, xy_px_2N=one.xy_px_2N + torch.tensor([[1.999], [0.0]]).double()).is_right
    assert not replace(one, xy_px_2N=one.xy_px_2N + torch.tensor([[2.001], [0.0]]).double()).is_right
    turned = replace(one, world_from_cam_44=POSE_44 @ rotation_xy(np.pi, 0.0))
    assert turned.as_stated_px == np.inf
    factory, values = one.__reduce__()
    again = factory(*values)
    assert torch.equal(again.p_world_3N, one.p_world_3N) and (again.stem, again.width_px) == ("s/a", 96)


def test_the_focal_length_by_the_labels():
    one = sighting()
    assert geometry_mistakes._focal_factor(one, POSE_44) == pytest.approx(1.0)
    longer_33 = K_33.clone()
    longer_33[[0, 1], [0, 1]] *= 1.25
    assert geometry_mistakes._focal_factor(replace(one, K_33=longer_33), POSE_44) == pytest.approx(1.25)
    few = replace(one, p_world_3N=one.p_world_3N[:, :7], xy_px_2N=one.xy_px_2N[:, :7])
    assert geometry_mistakes._focal_factor(few, POSE_44) == 0.0
    assert geometry_mistakes._focal_factor(one, POSE_44 @ rotation_xy(np.pi, 0.0)) == 0.0


def test_eight_cells_are_enough():
    camera = LabelCamera(K_33, 16, 32, 8)
    valid_hw = torch.ones(2, 4, dtype=torch.bool)
    coords_3hw = torch.arange(24.0).view(3, 2, 4)
    one = sighting_of("s/a", coords_3hw, valid_hw, POSE_44, camera)
    assert one.xy_px_2N.tolist() == [[4, 12, 20, 28] * 2, [4] * 4 + [12] * 4] and one.p_world_3N.dtype == torch.float64
    assert (one.height_px, one.width_px) == (16, 32)
    valid_hw[0, 1] = False
    assert sighting_of("s/a", coords_3hw, valid_hw, POSE_44, camera) is None


def test_where_samples_are_looked_at():
    assert geometry_check._spread(["a"] * 40 + ["b"] * 2, 8) == [0, 10, 20, 30, 40, 41]
    assert geometry_check._spread(["a"] * 5, 8) == [0, 1, 2, 3, 4] and geometry_check._spread(["a"] * 9, 4) == [0, 2, 4, 6]
    assert geometry_check._spread(list("abcd"), 2) == [0, 1, 2, 3] and geometry_check._spread(list("aaabbb"), 1) == [0, 3]


def test_how_many_images_are_looked_at_unless_told(monkeypatch, caplog):
    looked = []
    monkeypatch.setattr(geometry_check, "_sighting", lambda dataset, index: looked.append(index))
    with caplog.at_level(logging.INFO):
        assert geometry_check.check_geometry(SimpleNamespace(section_of=["s"] * 16)) is None
    assert looked == [0, 2, 4, 6, 8, 10, 12, 14] and "were not checked" in caplog.text
