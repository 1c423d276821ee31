"""The published functions of DSAC*, same names and argument order."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from dsacstar import _core
from dsacstar.arrays import check_clamp, float_array, output_array, real_number, whole_number
from dsacstar.solving import CM_PER_M, LARGEST_SEED, MOST_HYPOTHESES, RansacOptions, near_origin

logger = logging.getLogger("dsacstar")

# The published forward functions have no seed argument; they are deterministic all the same.
FORWARD_SEED = 1305
# Samples per hypothesis before it is given up as invalid.
BACKWARD_TRIES = 1000


def forward_rgb(
    scene_coordinates: Any,
    out_pose: Any,
    hypotheses: int,
    threshold_px: float,
    focal_length: float,
    cx: float,
    cy: float,
    inlier_alpha: float,
    max_reprojection_px: float,
    subsampling: int,
) -> bool:
    """Camera pose from scene coordinates by reprojection error.

    Args:
        scene_coordinates: [1, 3, h, w], metres; torch CPU tensor or numpy array.
        out_pose: [4, 4] float32 or float64, written in place: world from camera.
        threshold_px, max_reprojection_px: inlier threshold and clamp of the reprojection error, pixels.
        focal_length, cx, cy: pixels; cell (i, j) looks through ((j + 1/2) s, (i + 1/2) s), s = subsampling.
    Returns:
        Whether a pose was found; if not, out_pose is the identity and a warning is logged.
    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or range, named.
    """
    coords, origins_13 = near_origin(scene_coordinates, "scene_coordinates", 1)
    out = output_array(out_pose, "out_pose", (4, 4))
    focal = real_number(focal_length, "focal_length", above=0.0)
    intrinsics = np.array([[focal, focal, real_number(cx, "cx"), real_number(cy, "cy")]])
    return _forward(
        coords,
        origins_13[0],
        out,
        None,
        intrinsics,
        hypotheses=whole_number(hypotheses, "hypotheses", 1, MOST_HYPOTHESES),
        threshold=real_number(threshold_px, "threshold_px", above=0.0),
        inlier_alpha=real_number(inlier_alpha, "inlier_alpha", least=0.0),
        max_error=check_clamp(max_reprojection_px, "max_reprojection_px", threshold_px, "threshold_px"),
        subsampling=real_number(subsampling, "subsampling", above=0.0),
    )


def forward_rgbd(
    scene_coordinates: Any,
    camera_coordinates: Any,
    out_pose: Any,
    hypotheses: int,
    threshold_cm: float,
    inlier_alpha: float,
    max_distance_cm: float,
) -> bool:
    """Camera pose from scene coordinates and measured camera coordinates by 3D distance.

    Args:
        scene_coordinates, camera_coordinates: [1, 3, h, w], metres; camera coordinates (0, 0, 0) mean no measurement.
        out_pose: [4, 4] float32 or float64, written in place: world from camera.
        threshold_cm, max_distance_cm: inlier threshold and clamp of the distance, centimetres.
    Returns, Raises: as forward_rgb.
    """
    coords, origins_13 = near_origin(scene_coordinates, "scene_coordinates", 1)
    camera = float_array(camera_coordinates, "camera_coordinates", coords.shape)
    out = output_array(out_pose, "out_pose", (4, 4))
    return _forward(
        coords,
        origins_13[0],
        out,
        camera,
        None,
        hypotheses=whole_number(hypotheses, "hypotheses", 1, MOST_HYPOTHESES),
        threshold=real_number(threshold_cm, "threshold_cm", above=0.0) / CM_PER_M,
        inlier_alpha=real_number(inlier_alpha, "inlier_alpha", least=0.0),
        max_error=check_clamp(max_distance_cm, "max_distance_cm", threshold_cm, "threshold_cm") / CM_PER_M,
        subsampling=1.0,
    )


def backward_rgb(
    scene_coordinates: Any,
    out_gradients: Any,
    gt_pose: Any,
    hypotheses: int,
    threshold_px: float,
    focal_length: float,
    cx: float,
    cy: float,
    w_rot: float,
    w_trans: float,
    soft_clamp: float,
    inlier_alpha: float,
    max_reprojection_px: float,
    subsampling: int,
    seed: int,
) -> float:
    """Expected pose loss over the hypotheses, and its gradient.

    Args:
        scene_coordinates: [1, 3, h, w], metres.
        out_gradients: [1, 3, h, w] float32 or float64; the gradient is added to it, loss per metre.
        gt_pose: [4, 4], world from camera.
        w_rot, w_trans: weights of the rotation error in degrees and the translation error in metres.
        soft_clamp: a pose loss L above it counts as sqrt(soft_clamp * L).
        seed: same seed, same hypotheses.
        Others: as forward_rgb.
    Returns:
        The expected loss; 0, without gradient, when no hypothesis is valid (logged).
    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or range, named.
    Source: DSAC*, Brachmann & Rother, TPAMI 2021, sec. 3.5.
    """
    coords = float_array(scene_coordinates, "scene_coordinates", (1, 3, None, None))
    out = output_array(out_gradients, "out_gradients", coords.shape)
    focal = real_number(focal_length, "focal_length", above=0.0)
    return _backward(
        coords,
        out,
        None,
        np.array([focal, focal, real_number(cx, "cx"), real_number(cy, "cy")]),
        gt_pose,
        hypotheses=whole_number(hypotheses, "hypotheses", 1, MOST_HYPOTHESES),
        threshold=real_number(threshold_px, "threshold_px", above=0.0),
        w_rot=real_number(w_rot, "w_rot", least=0.0),
        w_trans=real_number(w_trans, "w_trans", least=0.0),
        soft_clamp=real_number(soft_clamp, "soft_clamp", least=0.0),
        inlier_alpha=real_number(inlier_alpha, "inlier_alpha", least=0.0),
        max_error=check_clamp(max_reprojection_px, "max_reprojection_px", threshold_px, "threshold_px"),
        subsampling=real_number(subsampling, "subsampling", above=0.0),
        seed=whole_number(seed, "seed", 0, LARGEST_SEED),
    )


def backward_rgbd(
    scene_coordinates: Any,
    camera_coordinates: Any,
    out_gradients: Any,
    gt_pose: Any,
    hypotheses: int,
    threshold_cm: float,
    w_rot: float,
    w_trans: float,
    soft_clamp: float,
    inlier_alpha: float,
    max_distance_cm: float,
    seed: int,
) -> float:
    """Expected pose loss of the RGB-D hypotheses, and its gradient by the scene coordinates.

    Args, Returns, Raises: as backward_rgb and forward_rgbd.
    """
    coords = float_array(scene_coordinates, "scene_coordinates", (1, 3, None, None))
    camera = float_array(camera_coordinates, "camera_coordinates", coords.shape)
    out = output_array(out_gradients, "out_gradients", coords.shape)
    return _backward(
        coords,
        out,
        camera,
        None,
        gt_pose,
        hypotheses=whole_number(hypotheses, "hypotheses", 1, MOST_HYPOTHESES),
        threshold=real_number(threshold_cm, "threshold_cm", above=0.0) / CM_PER_M,
        w_rot=real_number(w_rot, "w_rot", least=0.0),
        w_trans=real_number(w_trans, "w_trans", least=0.0),
        soft_clamp=real_number(soft_clamp, "soft_clamp", least=0.0),
        inlier_alpha=real_number(inlier_alpha, "inlier_alpha", least=0.0),
        max_error=check_clamp(max_distance_cm, "max_distance_cm", threshold_cm, "threshold_cm") / CM_PER_M,
        subsampling=1.0,
        seed=whole_number(seed, "seed", 0, LARGEST_SEED),
    )


def pose_array(value: Any, name: str) -> np.ndarray:
    """[4, 4] float64 rigid transform.

    Raises:
        TypeError, ValueError: not numbers, not [4, 4], or not a rotation and a finite translation.
    """
    pose = float_array(value, name, (4, 4), np.float64)
    if not np.isfinite(pose).all():
        raise ValueError(f"{name} is not finite")
    defect = np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max()
    if defect > 1e-2 or np.linalg.det(pose[:3, :3]) < 0 or np.abs(pose[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise ValueError(f"{name} is not a rigid transform (rotation off by {defect:.3g})")
    return pose


def _backward(
    coords: np.ndarray,
    out: np.ndarray,
    camera: np.ndarray | None,
    intrinsics: np.ndarray | None,
    gt_pose: Any,
    **limits: Any,
) -> float:
    loss, accepted, gradient = _core.expected_loss(
        scene_coords=coords,
        camera_coords=camera,
        intrinsics=intrinsics,
        world_from_cam=pose_array(gt_pose, "gt_pose"),
        max_tries=BACKWARD_TRIES,
        **limits,
    )
    if accepted == 0:
        logger.warning("no valid hypothesis: the loss is 0 and has no gradient")
    out += gradient[None].astype(out.dtype)
    return float(loss)


def _forward(
    coords: np.ndarray,
    origin_3: np.ndarray,
    out: np.ndarray,
    camera: np.ndarray | None,
    intrinsics: np.ndarray | None,
    **limits: Any,
) -> bool:
    defaults = RansacOptions()
    (row,) = _core.solve(
        scene_coords=coords,
        camera_coords=camera,
        intrinsics=intrinsics,
        sigma=None,
        mask=None,
        priors=None,
        most_hypotheses=defaults.max_hypotheses,
        pixel_residual=False,
        max_tries=defaults.max_tries,
        candidates=defaults.candidates,
        max_rounds=defaults.max_rounds,
        threads=1,
        seed=FORWARD_SEED,
        **limits,
    )
    pose = row["pose"]
    pose[:3, 3] += origin_3
    if not row["success"]:
        logger.warning("no pose found: the scene coordinates support none better than chance")
        pose = np.eye(4)
    out[...] = pose
    return bool(row["success"])
