"""Wrong dtype, shape, device or option: a TypeError or ValueError that names the argument."""

import numpy as np
import pytest
import torch

import dsacstar

COORDS = np.zeros((1, 3, 6, 9), np.float32)
POSE = np.zeros((4, 4), np.float32)
FORWARD = dict(
    scene_coordinates=COORDS,
    out_pose=POSE,
    hypotheses=8,
    threshold_px=10,
    focal_length=100,
    cx=36,
    cy=24,
    inlier_alpha=100,
    max_reprojection_px=100,
    subsampling=8,
)
BACKWARD = dict(
    scene_coordinates=COORDS,
    out_gradients=np.zeros_like(COORDS),
    gt_pose=np.eye(4),
    hypotheses=8,
    threshold_px=10,
    focal_length=100,
    cx=36,
    cy=24,
    w_rot=1,
    w_trans=1,
    soft_clamp=100,
    inlier_alpha=100,
    max_reprojection_px=100,
    subsampling=8,
    seed=0,
)
READ_ONLY = np.zeros((4, 4), np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("scene_coordinates", [[1.0]], TypeError),
        ("scene_coordinates", COORDS.astype(complex), TypeError),
        ("scene_coordinates", COORDS.astype(bool), TypeError),
        ("scene_coordinates", COORDS[0], ValueError),
        ("scene_coordinates", np.zeros((2, 3, 6, 9), np.float32), ValueError),
        ("scene_coordinates", torch.zeros(1, 3, 6, 9, device="meta"), ValueError),
        ("out_pose", np.zeros((4, 4), int), TypeError),
        ("out_pose", torch.zeros(4, 4, dtype=torch.bfloat16), TypeError),
        ("out_pose", np.zeros((3, 4), np.float32), ValueError),
        ("out_pose", READ_ONLY, ValueError),
        ("hypotheses", 0, ValueError),
        ("hypotheses", -5, ValueError),
        ("hypotheses", 2.5, TypeError),
        ("hypotheses", True, TypeError),
        ("hypotheses", "64", TypeError),
        ("threshold_px", 0, ValueError),
        ("threshold_px", float("nan"), ValueError),
        ("threshold_px", "10", TypeError),
        ("focal_length", -480, ValueError),
        ("cx", float("inf"), ValueError),
        ("cy", None, TypeError),
        ("inlier_alpha", -1, ValueError),
        ("max_reprojection_px", 0, ValueError),
        ("subsampling", 0, ValueError),
    ],
)
def test_forward_rgb_names_what_is_wrong(name, value, error):
    with pytest.raises(error, match=name):
        dsacstar.forward_rgb(*(FORWARD | {name: value}).values())


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("out_gradients", np.zeros((1, 3, 6, 8), np.float32), ValueError),
        ("out_gradients", np.zeros((1, 3, 6, 9), np.int32), TypeError),
        ("gt_pose", np.zeros((4, 4)), ValueError),
        ("gt_pose", np.full((4, 4), np.nan), ValueError),
        ("gt_pose", np.eye(3), ValueError),
        ("w_rot", -1, ValueError),
        ("w_trans", float("nan"), ValueError),
        ("soft_clamp", -1, ValueError),
        ("seed", -1, ValueError),
        ("seed", 0.5, TypeError),
    ],
)
def test_backward_rgb_names_what_is_wrong(name, value, error):
    with pytest.raises(error, match=name):
        dsacstar.backward_rgb(*(BACKWARD | {name: value}).values())


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        (dict(intrinsics=[1, 1, 0]), ValueError, "intrinsics"),
        (dict(intrinsics=[-1, 1, 0, 0]), ValueError, "intrinsics"),
        (dict(intrinsics=[1, float("nan"), 0, 0]), ValueError, "intrinsics"),
        (dict(intrinsics="fast"), TypeError, "intrinsics"),
        (dict(intrinsics=[[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]), ValueError, "intrinsics"),
        (dict(intrinsics=np.ones((2, 4))), ValueError, "intrinsics"),
        (dict(sigma=np.ones((1, 6, 8), np.float32)), ValueError, "sigma"),
        (dict(sigma=3.0), TypeError, "sigma"),
        (dict(mask=np.ones((1, 6, 9), np.float32)), TypeError, "mask"),
        (dict(mask=np.ones((2, 6, 9), bool)), ValueError, "mask"),
        (dict(options={"hypotheses": 3}), TypeError, "options"),
        (dict(seed=-1), ValueError, "seed"),
    ],
)
def test_solve_names_what_is_wrong(arguments, error, name):
    with pytest.raises(error, match=name):
        dsacstar.solve(COORDS, **({"intrinsics": [100, 100, 36, 24]} | arguments))


@pytest.mark.parametrize(
    "name",
    ["hypotheses", "threshold_px", "max_reprojection_px", "subsampling", "max_tries", "candidates", "max_rounds", "threads"],
)
def test_negative_options_are_refused(name):
    with pytest.raises(ValueError, match=name):
        dsacstar.RansacOptions(**{name: -1})


def test_rgbd_shapes_must_agree():
    with pytest.raises(ValueError, match="camera_coordinates"):
        dsacstar.forward_rgbd(COORDS, np.zeros((1, 3, 6, 8), np.float32), POSE, 8, 10, 100, 100)


def test_other_real_types_and_layouts_are_converted():
    rng = np.random.default_rng(0)
    coords = rng.standard_normal((1, 3, 6, 9)).astype(np.float32)
    answers = []
    for given in (
        coords,
        coords.astype(np.float64),
        np.asfortranarray(coords),
        torch.from_numpy(coords),
        torch.from_numpy(coords).requires_grad_(),
    ):
        out = torch.full((4, 4), 5.0).T  # not contiguous as a view, written all the same
        dsacstar.forward_rgb(*(FORWARD | dict(scene_coordinates=given, out_pose=out)).values())
        answers.append(out.numpy().copy())
    assert all(np.array_equal(answers[0], other) for other in answers)
