"""Which usual mistake of pose, calibration or labels explains that labels do not lie on their cells."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dataloader.sighting import MIN_CELLS, Sighting
from geometry.attitude import enu_from_camera, yaw_pitch_roll_from_enu_camera
from geometry.cameras import resize_intrinsics
from geometry.poses import invert_pose, pose_error

# Share of the tolerance.
_EQUALLY_GOOD = 0.1
# A fitted rotation that differs from the stated one by less is the same; degrees taken for radians blow errors up 57 times.
_SAME_ROTATION_DEG = 0.5
_SAME_IN_DEGREES_DEG = 5.0
# Origins of several images that differ by less, as a share of the shift or in metres, are one.
_SAME_SHIFT = 0.05
_SAME_SHIFT_M = 1.0


@dataclass(frozen=True)
class Explanation:
    """What is wrong with poses, calibrations or labels. Attributes: kind: a word for it; text: a sentence."""

    kind: str
    text: str


UNEXPLAINED = Explanation(
    "labels-of-another-view",
    "No usual mistake of pose or calibration explains it: are the labels those of this photo and scene?",
)


@dataclass(frozen=True)
class _Mistake:
    """A usual mistake and what would be right instead."""

    kind: str
    text: str
    world_from_cam_44: torch.Tensor
    K_33: torch.Tensor


def explain(wrong: Sequence[Sighting]) -> Explanation:
    """The mistake without which the labels of most images fit; of several that do so about as well, the most usual one."""
    found = [_explanations(sighting.thinned()) for sighting in wrong]
    votes = Counter(kind for explanations in found for kind in explanations)
    if not votes:
        return UNEXPLAINED
    most = max(votes.values())
    kind = next(kind for explanations in found for kind in explanations if votes[kind] == most)
    if kind == _Fit.ORIGIN and len(wrong) > 1 and not _is_one_shift(wrong):
        kind = _Fit.POSITION
    text = (
        next(explanations[kind] for explanations in found if kind in explanations)
        if kind != _Fit.POSITION
        else ("The labels fit when every camera is moved, each by another way: the poses' positions are wrong")
    )
    return Explanation(kind, text)


def _explanations(sighting: Sighting) -> dict[str, str]:
    """Kinds of mistakes that explain an image about equally well, from the most usual one on, and what to say of them."""
    mistakes = list(_mistakes(sighting))
    left_px = [sighting.median_px(mistake.world_from_cam_44, mistake.K_33) for mistake in mistakes]
    if min(left_px) > sighting.tolerance_px:
        return _fitted_explanation(sighting)
    good_px = min(left_px) + _EQUALLY_GOOD * sighting.tolerance_px
    found: dict[str, str] = {}
    for mistake, px in zip(mistakes, left_px):
        if px <= good_px:
            found.setdefault(
                mistake.kind, f"It looks as if {mistake.text}: with that put right, the distance is {px:.2f} px"
            )
    return found


class _Fit:
    """Kinds of mistakes that a fitted pose shows."""

    ORIGIN, POSITION, DEGREES, POSE = "wrong-origin", "wrong-positions", "degrees-for-radians", "wrong-pose"


def _fitted_explanation(sighting: Sighting) -> dict[str, str]:
    """What the pose that fits the labels best says of the stated one; nothing when none fits."""
    fitted_44 = _fitted_pose(sighting)
    if fitted_44 is None or (px := sighting.median_px(fitted_44, sighting.K_33)) > sighting.tolerance_px:
        return {}
    shift_m, turn_deg = pose_error(sighting.world_from_cam_44, fitted_44)
    end = f"with that put right, the distance is {px:.2f} px"
    if turn_deg < _SAME_ROTATION_DEG:
        shift = _numbers(_shift(sighting, fitted_44))
        return {
            _Fit.ORIGIN: f"It looks as if poses and labels had different origins: with the camera moved by {shift} m, the "
            f"distance is {px:.2f} px"
        }
    if confusion := _confused_units(fitted_44[:3, :3].numpy(), sighting.world_from_cam_44[:3, :3].numpy()):
        return {_Fit.DEGREES: f"It looks as if {confusion} when the rotation was made: {end}"}
    return {
        _Fit.POSE: f"Another pose fits the labels ({shift_m:.3g} m and {turn_deg:.3g} degrees away; {px:.2f} px): is this "
        "that photo's?"
    }


def _fitted_pose(sighting: Sighting) -> torch.Tensor | None:
    """The camera-to-world pose with which the labels fit their cells, [4, 4]."""
    centre_31 = sighting.p_world_3N.mean(1, keepdim=True)
    points_N3, xy_N2 = (sighting.p_world_3N - centre_31).T.numpy(), sighting.xy_px_2N.T.numpy()
    try:
        solved, rotation_31, translation_31 = cv2.solvePnP(
            np.ascontiguousarray(points_N3),
            np.ascontiguousarray(xy_N2),
            sighting.K_33.numpy(),
            None,
            flags=cv2.SOLVEPNP_SQPNP,
        )
    except cv2.error:
        return None
    if not solved or not np.isfinite(translation_31).all():
        return None
    cam_from_world_44 = torch.eye(4, dtype=torch.float64)
    cam_from_world_44[:3, :3] = torch.from_numpy(cv2.Rodrigues(rotation_31)[0])
    cam_from_world_44[:3, 3:] = torch.from_numpy(translation_31) - cam_from_world_44[:3, :3] @ centre_31
    return invert_pose(cam_from_world_44)


def _shift(sighting: Sighting, fitted_44: torch.Tensor) -> torch.Tensor:
    return fitted_44[:3, 3] - sighting.world_from_cam_44[:3, 3]


def _is_one_shift(wrong: Sequence[Sighting]) -> bool:
    """Whether one shift for all explains the images: the origin's, not a camera's own."""
    fitted = [(sighting, _fitted_pose(sighting.thinned())) for sighting in wrong]
    shifts_N3 = torch.stack([_shift(sighting, fitted_44) for sighting, fitted_44 in fitted if fitted_44 is not None])
    middle_3 = shifts_N3.median(0).values
    apart_N = torch.linalg.vector_norm(shifts_N3 - middle_3, dim=1)
    return bool(apart_N.median() <= max(_SAME_SHIFT_M, _SAME_SHIFT * float(torch.linalg.vector_norm(middle_3))))


def _confused_units(right_33: np.ndarray, stated_33: np.ndarray) -> str:
    """Which unit of angles was taken for which when the stated rotation was made instead of the right one; or nothing."""
    for text, made_33 in _confusions(right_33):
        if np.degrees(Rotation.from_matrix(made_33.T @ stated_33).magnitude()) < _SAME_IN_DEGREES_DEG:
            return text
    return ""


def _confusions(right_33: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Rotations that come out when degrees are taken for radians or the other way round, by the usual kinds of angles."""
    rotation = Rotation.from_matrix(right_33)
    for text, factor in (("degrees were taken for radians", 180 / np.pi), ("radians were taken for degrees", np.pi / 180)):
        yield text, Rotation.from_rotvec(factor * rotation.as_rotvec()).as_matrix()
        for angles_3 in _branches(np.array(yaw_pitch_roll_from_enu_camera(right_33))):
            yield text, enu_from_camera(*(factor * angles_3))
        for order in ("xyz", "xzy", "yxz", "yzx", "zxy", "zyx", "XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX"):
            for angles_3 in _branches(rotation.as_euler(order, degrees=True)):
                yield text, Rotation.from_euler(order, factor * angles_3, degrees=True).as_matrix()


def _branches(angles_deg_3: np.ndarray) -> Iterator[np.ndarray]:
    """Angles as they are in -180 to 180 degrees, and with each negative one in 0 to 360."""
    yield angles_deg_3
    for turns in itertools.product(*((0.0, 360.0) if angle < 0 else (0.0,) for angle in angles_deg_3)):
        if any(turns):
            yield angles_deg_3 + np.array(turns)


def _numbers(vector_3: torch.Tensor) -> str:
    """To the centimetre."""
    return " ".join(f"{round(value, 2) + 0.0:.10g}" for value in vector_3.tolist())


def _mistakes(sighting: Sighting) -> Iterator[_Mistake]:
    """From the most usual one on."""
    pose_44, K_33 = sighting.world_from_cam_44, sighting.K_33
    yield from _calibrations(sighting, pose_44, "")
    inverse = (
        "world-to-camera",
        "the pose were world-to-camera; poses/ wants camera-to-world, its inverse",
        invert_pose(pose_44),
    )
    flipped = (
        "opengl-axes",
        "the camera's y and z axes were flipped (OpenGL); poses/ wants OpenCV's: x right, y down, z forward",
        pose_44 @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64)),
    )
    poses = [inverse, flipped]
    for kinds, before, base_44 in (("", "", pose_44), ("world-to-camera, ", f"{inverse[1]}; and ", inverse[2])):
        poses += [
            (
                f"{kinds}camera-axes",
                f"{before}the camera's axes were swapped: the pose's {_axes(R)} are right, down and forward",
                base_44 @ R,
            )
            for R in _turns()
        ]
        # Two swapped axes mirror the world (longitude and latitude, say): no pose does, but distances can be measured.
        poses += [
            (
                f"{kinds}world-axes",
                f"{before}world axes were swapped: x, y and z of the labels are the pose's {_axes(R)}",
                R.T @ base_44,
            )
            for R in _turns(mirrored=True)
        ]
    for kind, text, right_44 in poses[:2]:
        yield _Mistake(kind, text, right_44, K_33)
    yield from _mirrorings(sighting)
    for kind, text, right_44 in poses[2:]:
        yield _Mistake(kind, text, right_44, K_33)
    for kind, text, right_44 in poses[:2]:
        yield from _calibrations(sighting, right_44, f"{text}; and ", f"{kind}, ")


def _mirrorings(sighting: Sighting) -> Iterator[_Mistake]:
    """Label maps that are stored mirrored: the same as a camera that mirrors its image."""
    for text, across, size in (("its columns run from right to left", 0, sighting.width_px),
                               ("its rows run from bottom to top", 1, sighting.height_px)):  # fmt: skip
        mirrored_33 = sighting.K_33.clone()
        mirrored_33[across, across] *= -1
        mirrored_33[across, 2] = size - mirrored_33[across, 2]
        yield _Mistake("mirrored-labels", f"the label map were mirrored: {text}", sighting.world_from_cam_44, mirrored_33)


def _calibrations(sighting: Sighting, pose_44: torch.Tensor, before: str, kinds_before: str = "") -> Iterator[_Mistake]:
    """Intrinsics of the image at another size, and another focal length, fitted to the labels."""
    K_33, (H, W) = sighting.K_33, (sighting.height_px, sighting.width_px)
    # The principal point lies in the middle of nearly every image.
    stated_width_px = max(2 * K_33[0, 2].item(), 1.0)
    resized_33 = resize_intrinsics(K_33, W / stated_width_px, W / stated_width_px)
    yield _Mistake(
        f"{kinds_before}calibration-of-another-size",
        f"{before}the calibration were of an image of {stated_width_px:.0f} px in width, the stored one has {W} x {H} px",
        pose_44,
        resized_33,
    )
    if abs(K_33[0, 2].item() - W / 2) + abs(K_33[1, 2].item() - H / 2) > sighting.tolerance_px:
        central_33 = K_33.clone()
        central_33[:2, 2] = torch.tensor([W / 2, H / 2], dtype=K_33.dtype)
        yield _Mistake(
            f"{kinds_before}principal-point",
            f"{before}the principal point were the image's centre, not {K_33[0, 2]:.6g} {K_33[1, 2]:.6g}",
            pose_44,
            central_33,
        )
    factor = _focal_factor(sighting, pose_44)
    if factor > 0:
        fitted_33 = K_33.clone()
        fitted_33[[0, 1], [0, 1]] /= factor
        yield _Mistake(
            f"{kinds_before}focal-length",
            f"{before}the focal length were {factor:.3g} times what the labels say ({K_33[0, 0]:.6g} px in calibration/, "
            f"{fitted_33[0, 0]:.6g} px by the labels); calibration/ wants that of the stored image, {W} x {H} px",
            pose_44,
            fitted_33,
        )


def _focal_factor(sighting: Sighting, pose_44: torch.Tensor) -> float:
    """By how much the calibration's focal length exceeds the one with which the labels fit."""
    xy_2N, depth_N = sighting.projected(pose_44, sighting.K_33)
    centre_21 = sighting.K_33[:2, 2:]
    stated_2N, seen_2N = (v[:, depth_N > 0] - centre_21 for v in (xy_2N, sighting.xy_px_2N))
    if stated_2N.shape[1] < MIN_CELLS:
        return 0.0
    # The median of ratios: few labels may be wrong.
    ratio_N = torch.linalg.vector_norm(stated_2N, dim=0) / torch.linalg.vector_norm(seen_2N, dim=0).clamp(min=1e-9)
    return ratio_N.median().item()


def _turns(mirrored: bool = False) -> Iterator[torch.Tensor]:
    """The rotations, or mirrorings too, that map axes onto axes, but for none at all, as poses [4, 4]."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            R_44 = torch.eye(4, dtype=torch.float64)
            R_44[:3, :3] = torch.eye(3, dtype=torch.float64)[:, list(order)] * torch.tensor(signs, dtype=torch.float64)
            if (mirrored or torch.linalg.det(R_44) > 0) and not torch.equal(R_44, torch.eye(4, dtype=torch.float64)):
                yield R_44


def _axes(R_44: torch.Tensor) -> str:
    """The axes that the columns of a turn are: "x, -z and y"."""
    names = []
    for column in R_44[:3, :3].T:
        axis = int(column.abs().argmax())
        names.append(("" if column[axis] > 0 else "-") + "xyz"[axis])
    return f"{names[0]}, {names[1]} and {names[2]}"
