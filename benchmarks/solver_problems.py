"""Camera-pose problems put together from parts: errors as they really come.

A problem is put together from four parts, each a function that draws from its own stream of the seed: the *view* (camera
and exact coordinates), the *noise* on every cell, what is *wrong* (gross outliers, a part of the image that belongs to
another pose, patches), and the *sigma* that the solver is told. So families that differ in one part share the others
problem by problem, and what sigma is worth can be read from pairs: benchmarks/solver_families.py.

Metres, pixels, degrees; OpenCV camera axes; poses are world from camera.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

FOV_FOCAL = 480.0 / 90.0  # focal length in cells of the 60x90 views: smaller images see the same angle
GROSS_M = 60.0  # spread of the project's own gross outliers
SIGMA_FLOOR_M = 1e-3


@dataclass(frozen=True)
class Shot:
    """A camera and the exact coordinates of its cells, [3, h, w] float64; cells without a surface are not valid."""

    pose_44: np.ndarray
    truth_3hw: np.ndarray
    valid_hw: np.ndarray
    focal_px: float
    subsampling: int

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height)."""
        return self.truth_3hw.shape[2] * self.subsampling, self.truth_3hw.shape[1] * self.subsampling


@dataclass(frozen=True)
class Problem:
    """What a solver is given, and what is true.

    Attributes:
        coords_3hw: float32.
        sigma_hw, mask_hw: float32 and bool, or None where the family gives none.
        right_poses: the answers that count as right: one; two for equal structures; none for pure noise.
        other_poses: poses that many cells agree with and that are wrong.
        wrong_hw: cells that carry no information on the (first) right pose.
    """

    coords_3hw: np.ndarray
    sigma_hw: np.ndarray | None
    mask_hw: np.ndarray | None
    intrinsics: tuple[float, float, float, float]
    subsampling: int
    threshold_px: float
    right_poses: tuple[np.ndarray, ...]
    other_poses: tuple[np.ndarray, ...]
    truth_3hw: np.ndarray
    wrong_hw: np.ndarray


View = Callable[[np.random.Generator], Shot]
Noise = Callable[[np.random.Generator, Shot], "tuple[np.ndarray, np.ndarray]"]  # offsets_3hw, their sigma_hw


@dataclass
class Draft:
    """Coordinates while things go wrong with them."""

    coords_3hw: np.ndarray
    sigma_hw: np.ndarray
    wrong_hw: np.ndarray
    right_poses: list
    other_poses: list


Wrong = Callable[[np.random.Generator, Shot, Draft], None]
Told = Callable[[np.random.Generator, Draft], np.ndarray]


def compose(
    seed: int,
    view: View,
    noise: Noise,
    wrong: tuple[Wrong, ...] = (),
    sigma: Told | None = None,
    *,
    threshold_px: float = 10.0,
) -> Problem:
    """The problem of a seed: the view, then noise, then what goes wrong in turn, then what the solver is told."""
    view_rng, noise_rng, wrong_rng, sigma_rng = (np.random.default_rng([seed, part]) for part in range(4))
    shot = view(view_rng)
    offsets_3hw, sigma_hw = noise(noise_rng, shot)
    draft = Draft(shot.truth_3hw + offsets_3hw, sigma_hw.copy(), np.zeros(sigma_hw.shape, bool), [shot.pose_44], [])
    for step in wrong:
        step(wrong_rng, shot, draft)
    told_hw = None if sigma is None else np.maximum(sigma(sigma_rng, draft), SIGMA_FLOOR_M).astype(np.float32)
    width_px, height_px = shot.size_px
    return Problem(
        coords_3hw=np.ascontiguousarray(draft.coords_3hw, dtype=np.float32),
        sigma_hw=told_hw,
        mask_hw=None if shot.valid_hw.all() else shot.valid_hw,
        intrinsics=(shot.focal_px, shot.focal_px, width_px / 2, height_px / 2),
        subsampling=shot.subsampling,
        threshold_px=threshold_px,
        right_poses=tuple(draft.right_poses),
        other_poses=tuple(draft.other_poses),
        truth_3hw=shot.truth_3hw,
        wrong_hw=draft.wrong_hw,
    )


# ---------------------------------------------------------------------------------------------------------------- views


def rotation_looking(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """[3, 3] world from camera: forward at the pitch above the horizon, heading yaw clockwise from +y; radians."""
    forward = np.array([np.cos(pitch) * np.sin(yaw), np.cos(pitch) * np.cos(yaw), np.sin(pitch)])
    right = np.array([np.cos(yaw), -np.sin(yaw), 0.0])
    turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return np.stack([right, np.cross(forward, right), forward], axis=1) @ turn


def random_pose(rng: np.random.Generator, pitch_deg: tuple[float, float], low_3: tuple, high_3: tuple) -> np.ndarray:
    """[4, 4] with the centre in a box, any heading, roll within 5 deg."""
    pose = np.eye(4)
    pose[:3, :3] = rotation_looking(*np.radians([rng.uniform(*pitch_deg), rng.uniform(0, 360), rng.uniform(-5, 5)]))
    pose[:3, 3] = rng.uniform(low_3, high_3)
    return pose


def directions(rng: np.random.Generator, pose_44, height, width, focal_px, subsampling, pixel_noise) -> np.ndarray:
    """[3, h*w] in the world, of unit depth, through the cells' centres moved by pixel_noise."""
    cols, rows = np.meshgrid((np.arange(width) + 0.5) * subsampling, (np.arange(height) + 0.5) * subsampling)
    pixels_2hw = np.stack([cols - width * subsampling / 2, rows - height * subsampling / 2])
    if pixel_noise:
        pixels_2hw = pixels_2hw + pixel_noise * rng.standard_normal(pixels_2hw.shape)
    return pose_44[:3, :3] @ np.concatenate([pixels_2hw / focal_px, np.ones((1, height, width))]).reshape(3, -1)


def aerial(
    height: int = 60,
    width: int = 90,
    *,
    focal_px: float | None = None,
    subsampling: int = 8,
    pitch_deg: tuple[float, float] = (-80, -35),
    altitude_m: tuple[float, float] = (120, 200),
    relief_m: float = 20.0,
    pixel_noise: float = 0.0,
    offset_3: tuple[float, float, float] = (0, 0, 0),
    sky: bool = False,
) -> View:
    """Rolling ground from the air. Rays that meet nothing end 900 m away, or with `sky` they are masked.

    focal_px defaults to the 60x90 views' angle across the long side. pixel_noise moves the rays that the exact points lie
    on away from the cells' centres, which is classical PnP's error model.
    """

    def make(rng: np.random.Generator) -> Shot:
        focal = focal_px or FOV_FOCAL * max(height, width) * subsampling / 8
        pose = random_pose(rng, pitch_deg, (-100, -100, altitude_m[0]), (100, 100, altitude_m[1]))
        phase, wave = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.01, 0.04, (2, 2)) * rng.choice([-1, 1], (2, 2))
        rays_3N = directions(rng, pose, height, width, focal, subsampling, pixel_noise)
        points_3N, met_N = meet_ground(pose[:3, 3:], rays_3N, phase, wave, relief_m)
        pose[:3, 3] += offset_3
        truth_3hw = points_3N.reshape(3, height, width) + np.reshape(offset_3, (3, 1, 1))
        valid_hw = met_N.reshape(height, width) if sky else np.ones((height, width), bool)
        return Shot(pose, truth_3hw, valid_hw, focal, subsampling)

    return make


def meet_ground(centre_31, rays_3N, phase_2, wave_22, relief_m: float) -> tuple[np.ndarray, np.ndarray]:
    """([3, N] points, [N] whether the ray met the ground), by steps that the ground's steepest slope allows.

    A point is on its ray to rounding whatever the depth, which is all that an exact problem needs.
    """
    far_m = 900.0
    slope = relief_m / 2 * np.linalg.norm(wave_22, axis=1).sum()
    closing_N = np.maximum(slope * np.linalg.norm(rays_3N[:2], axis=0) - rays_3N[2], 1e-3)
    depth_N = np.zeros(rays_3N.shape[1])
    for _ in range(60):
        x_N, y_N, z_N = centre_31 + rays_3N * depth_N
        above_N = z_N - relief_m / 2 * sum(np.sin(wave_22[i, 0] * x_N + wave_22[i, 1] * y_N + phase_2[i]) for i in range(2))
        depth_N = np.minimum(depth_N + np.maximum(above_N, 0) / closing_N, far_m)
        if np.all((above_N < 0.05) | (depth_N == far_m)):
            break
    return centre_31 + rays_3N * depth_N, depth_N < far_m


def indoor(height: int = 60, width: int = 90, *, focal_px: float = 480.0, subsampling: int = 8) -> View:
    """A room of 6 x 5 x 2.8 m with five pieces of furniture, from eye height."""
    room_low, room_high = np.zeros((3, 1)), np.array([[6.0], [5.0], [2.8]])

    def make(rng: np.random.Generator) -> Shot:
        pose = random_pose(rng, (-25, 10), (1.5, 1.5, 1.3), (4.5, 3.5, 1.8))
        centre_31 = pose[:3, 3:]
        rays_3N = directions(rng, pose, height, width, focal_px, subsampling, 0.0)
        depth_N = np.where(rays_3N > 0, (room_high - centre_31) / rays_3N, (room_low - centre_31) / rays_3N).min(axis=0)
        for _ in range(5):
            low_31 = np.array([[rng.uniform(0, 5)], [rng.uniform(0, 4)], [0.0]])
            high_31 = low_31 + rng.uniform(0.4, 1.2, (3, 1))
            entry_3N, exit_3N = np.sort([(low_31 - centre_31) / rays_3N, (high_31 - centre_31) / rays_3N], axis=0)
            enter_N, leave_N = entry_3N.max(axis=0), exit_3N.min(axis=0)
            depth_N = np.where((enter_N < leave_N) & (enter_N > 0.3) & (enter_N < depth_N), enter_N, depth_N)
        truth_3hw = (centre_31 + rays_3N * depth_N).reshape(3, height, width)
        return Shot(pose, truth_3hw, np.ones((height, width), bool), focal_px, subsampling)

    return make


def masked(view: View, share: float) -> View:
    """The view with only a random share of its cells valid."""

    def make(rng: np.random.Generator) -> Shot:
        shot = view(rng)
        valid_hw = rng.random(shot.valid_hw.shape) < share
        return Shot(shot.pose_44, shot.truth_3hw, valid_hw & shot.valid_hw, shot.focal_px, shot.subsampling)

    return make


# ---------------------------------------------------------------------------------------------------------------- noise


def smooth_field(rng: np.random.Generator, channels: int, height: int, width: int, length: float) -> np.ndarray:
    """[channels, h, w], unit variance, white noise under a Gaussian filter of `length` cells; no effect of the border."""
    margin = int(np.ceil(3 * length))
    white = rng.standard_normal((channels, height + 2 * margin, width + 2 * margin))
    impulse = np.zeros(8 * margin + 1)
    impulse[4 * margin] = 1.0
    gain = np.sum(gaussian_filter1d(impulse, length, truncate=3.0) ** 2)
    filtered = gaussian_filter(white, (0, length, length), truncate=3.0)
    return filtered[:, margin : margin + height, margin : margin + width] / gain


def uneven(rng: np.random.Generator, shape: tuple[int, int], spread: float) -> np.ndarray:
    """[h, w] log-normal factors with mean square 1: cell by cell unrelated, as certain and uncertain cells lie mixed."""
    return np.exp(spread * rng.standard_normal(shape) - spread**2)


def white(sigma_m: float, *, spread: float = 0.0) -> Noise:
    """Independent Gaussian noise; spread is the standard deviation of log sigma over the cells."""

    def draw(rng: np.random.Generator, shot: Shot):
        sigma_hw = sigma_m * uneven(rng, shot.valid_hw.shape, spread)
        return sigma_hw * rng.standard_normal(shot.truth_3hw.shape), sigma_hw

    return draw


def correlated(sigma_m: float, length: float, *, spread: float = 0.0) -> Noise:
    """Gaussian noise correlated over `length` cells, times an uneven sigma."""

    def draw(rng: np.random.Generator, shot: Shot):
        sigma_hw = sigma_m * uneven(rng, shot.valid_hw.shape, spread)
        return sigma_hw * smooth_field(rng, *shot.truth_3hw.shape, length), sigma_hw

    return draw


def network_like(sigma_m: float) -> Noise:
    """Errors of two lengths whose size grows with the distance and varies smoothly over the image."""

    def draw(rng: np.random.Generator, shot: Shot):
        shape = shot.truth_3hw.shape
        distance_hw = np.linalg.norm(shot.truth_3hw - shot.pose_44[:3, 3].reshape(3, 1, 1), axis=0)
        sigma_hw = sigma_m * distance_hw / np.median(distance_hw) * np.exp(0.6 * smooth_field(rng, 1, *shape[1:], 5.0)[0])
        unit = np.sqrt(0.3) * rng.standard_normal(shape) + np.sqrt(0.5) * smooth_field(rng, *shape, 2.0)
        return sigma_hw * (unit + np.sqrt(0.2) * smooth_field(rng, *shape, 12.0)), sigma_hw

    return draw


def heavy(sigma_m: float, kind: str) -> Noise:
    """Isotropic heavy-tailed offsets: "student" (3 degrees of freedom) or "laplace"; sigma_m is their scale."""

    def draw(rng: np.random.Generator, shot: Shot):
        normal = rng.standard_normal(shot.truth_3hw.shape)
        count = shot.valid_hw.shape
        scale_hw = np.sqrt(3.0 / rng.chisquare(3.0, count)) if kind == "student" else np.sqrt(rng.exponential(1.0, count))
        return sigma_m * scale_hw * normal, np.full(count, sigma_m)

    return draw


# ---------------------------------------------------------------------------------------------------- what goes wrong


def some_cells(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    """[h, w] bool, exactly the share (rounded) of the cells, anywhere."""
    chosen = np.zeros(shape[0] * shape[1], bool)
    chosen[rng.permutation(chosen.size)[: round(share * chosen.size)]] = True
    return chosen.reshape(shape)


def side(rng: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    """[h, w] bool, the share of the cells that lies furthest in a random direction of the image: one connected part."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    angle = rng.uniform(0, 2 * np.pi)
    reach_hw = np.cos(angle) * cols + np.sin(angle) * rows
    return reach_hw > np.quantile(reach_hw, 1 - share)


def blobs(rng: np.random.Generator, shape: tuple[int, int], share: float, length: float = 8.0) -> np.ndarray:
    """[h, w] bool, the share of the cells where a smooth random field is highest: a few patches."""
    field_hw = smooth_field(rng, 1, *shape, length)[0]
    return field_hw > np.quantile(field_hw, 1 - share)


def replace(draft: Draft, chosen_hw: np.ndarray, coords_3n: np.ndarray, sigma_m: float) -> None:
    draft.coords_3hw[:, chosen_hw] = coords_3n
    draft.sigma_hw[chosen_hw] = sigma_m
    draft.wrong_hw |= chosen_hw


def gross(share: float, *, gaussian_m: float = 0.0, uniform_m: float = 0.0, where=some_cells) -> Wrong:
    """Outliers around the true coordinates: Gaussian of that spread, or uniform over +- that distance."""

    def apply(rng: np.random.Generator, shot: Shot, draft: Draft) -> None:
        chosen_hw = where(rng, draft.wrong_hw.shape, share)
        truth_3n = shot.truth_3hw[:, chosen_hw]
        away_3n = (
            gaussian_m * rng.standard_normal(truth_3n.shape)
            if gaussian_m
            else rng.uniform(-uniform_m, uniform_m, truth_3n.shape)
        )
        replace(draft, chosen_hw, truth_3n + away_3n, gaussian_m or uniform_m / np.sqrt(3))

    return apply


def in_scene(share: float, where=some_cells) -> Wrong:
    """Outliers anywhere in the box that holds the image's true coordinates."""

    def apply(rng: np.random.Generator, shot: Shot, draft: Draft) -> None:
        chosen_hw = where(rng, draft.wrong_hw.shape, share)
        low_31, high_31 = (f(shot.truth_3hw.reshape(3, -1), axis=1, keepdims=True) for f in (np.min, np.max))
        coords_3n = rng.uniform(low_31, high_31, (3, int(chosen_hw.sum())))
        replace(draft, chosen_hw, coords_3n, float(np.linalg.norm(high_31 - low_31)) / 6)

    return apply


def shuffled(share: float) -> Wrong:
    """Coordinates of other cells of the same image."""

    def apply(rng: np.random.Generator, shot: Shot, draft: Draft) -> None:
        chosen_hw = some_cells(rng, draft.wrong_hw.shape, share)
        replace(draft, chosen_hw, rng.permutation(draft.coords_3hw[:, chosen_hw], axis=1), GROSS_M)

    return apply


def moved(share: float, metres: float, *, turn_deg: float = 0.0, where=side, equal: bool = False) -> Wrong:
    """A part of the image whose coordinates are moved rigidly: they agree with another pose as well as the rest does.

    The move is horizontal, after a turn about the vertical through the image's centre of mass. With `equal` the other
    pose counts as right too.
    """

    def apply(rng: np.random.Generator, shot: Shot, draft: Draft) -> None:
        chosen_hw = where(rng, draft.wrong_hw.shape, share)
        heading = rng.uniform(0, 2 * np.pi)
        cos, sin = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
        turn_33 = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
        middle_3 = shot.truth_3hw.reshape(3, -1).mean(axis=1)
        shift_3 = middle_3 - turn_33 @ middle_3 + metres * np.array([np.cos(heading), np.sin(heading), 0.0])
        draft.coords_3hw[:, chosen_hw] = turn_33 @ draft.coords_3hw[:, chosen_hw] + shift_3[:, None]
        other = np.eye(4)
        other[:3, :3], other[:3, 3] = turn_33 @ shot.pose_44[:3, :3], turn_33 @ shot.pose_44[:3, 3] + shift_3
        if equal:
            draft.right_poses.append(other)
        else:
            draft.other_poses.append(other)
            draft.wrong_hw |= chosen_hw

    return apply


def smooth_patch(share: float, metres: float, length: float = 15.0) -> Wrong:
    """Patches where the coordinates are wrong by tens of metres and smooth, as a network invents them."""

    def apply(rng: np.random.Generator, shot: Shot, draft: Draft) -> None:
        chosen_hw = blobs(rng, draft.wrong_hw.shape, share)
        field_3hw = metres * (smooth_field(rng, *shot.truth_3hw.shape, length) + rng.standard_normal((3, 1, 1)))
        draft.coords_3hw[:, chosen_hw] += field_3hw[:, chosen_hw]
        draft.wrong_hw |= chosen_hw

    return apply


def one_point(share: float) -> Wrong:
    """Patches where the network answers the middle of the scene, with a metre of jitter."""

    def apply(rng: np.random.Generator, shot: Shot, draft: Draft) -> None:
        chosen_hw = blobs(rng, draft.wrong_hw.shape, share)
        middle_31 = shot.truth_3hw.reshape(3, -1).mean(axis=1, keepdims=True)
        replace(draft, chosen_hw, middle_31 + rng.standard_normal((3, int(chosen_hw.sum()))), 1.0)

    return apply


def edges(lines: int, width_cells: float = 3.0) -> Wrong:
    """Bands across the image (edges between near and far) whose coordinates lie on a straight line in the scene."""

    def apply(rng: np.random.Generator, shot: Shot, draft: Draft) -> None:
        height, width = draft.wrong_hw.shape
        rows, cols = np.mgrid[:height, :width]
        for _ in range(lines):
            angle, through = rng.uniform(0, np.pi), rng.uniform((0, 0), (width, height))
            across = np.cos(angle) * (cols - through[0]) + np.sin(angle) * (rows - through[1])
            along = -np.sin(angle) * (cols - through[0]) + np.cos(angle) * (rows - through[1])
            chosen_hw = np.abs(across) < width_cells / 2
            start_3, end_3 = shot.truth_3hw.reshape(3, -1)[:, rng.integers(0, height * width, 2)].T
            ramp_n = (along[chosen_hw] - along[chosen_hw].min()) / max(np.ptp(along[chosen_hw]), 1.0)
            points_3n = start_3[:, None] + (end_3 - start_3)[:, None] * ramp_n + 0.3 * rng.standard_normal((3, len(ramp_n)))
            replace(draft, chosen_hw, points_3n, GROSS_M)

    return apply


def pure_noise(kind: str) -> Wrong:
    """No cell is right: "uniform" over +-150 m, "shuffled" true coordinates, or a "smooth" invented surface."""

    def apply(rng: np.random.Generator, shot: Shot, draft: Draft) -> None:
        everywhere_hw = np.ones(draft.wrong_hw.shape, bool)
        shape = shot.truth_3hw.shape
        if kind == "uniform":
            coords_3hw = rng.uniform(-150, 150, shape)
        elif kind == "shuffled":
            coords_3hw = rng.permutation(shot.truth_3hw.reshape(3, -1), axis=1).reshape(shape)
        else:
            coords_3hw = 60.0 * smooth_field(rng, *shape, 4.0)
        replace(draft, everywhere_hw, coords_3hw.reshape(3, -1), GROSS_M)
        draft.right_poses.clear()

    return apply


# ------------------------------------------------------------------------------------------- the sigma a solver is told


def right(rng: np.random.Generator, draft: Draft) -> np.ndarray:
    return draft.sigma_hw


def unrelated(rng: np.random.Generator, draft: Draft) -> np.ndarray:
    """The right values at the wrong cells."""
    return rng.permutation(draft.sigma_hw.ravel()).reshape(draft.sigma_hw.shape)


def inverse(rng: np.random.Generator, draft: Draft) -> np.ndarray:
    return 1.0 / np.maximum(draft.sigma_hw, SIGMA_FLOOR_M)


def rough(rng: np.random.Generator, draft: Draft) -> np.ndarray:
    """The right sigma times a log-normal factor, and no notion of the outliers (they get an inlier's sigma)."""
    inlier_m = np.median(draft.sigma_hw[~draft.wrong_hw])
    return np.where(draft.wrong_hw, inlier_m, draft.sigma_hw) * np.exp(0.4 * rng.standard_normal(draft.sigma_hw.shape))


TOLD = {"right": right, "unrelated": unrelated, "inverse": inverse, "rough": rough}
