"""A surface model from photos: sparse points as the base, a plane sweep around it, semi-global matching on the ground grid.

The sweep runs over heights at every cell of the ground grid, so all photos that see a cell vote at once and nothing has to
be merged afterwards. The vote is the mean normalised cross-correlation over all pairs of photos, computed from sums:
sum over pairs of u_i u_j = ((sum u)^2 - sum u^2) / 2, with u a photo's locally normalised grey value.

Source: R. Collins, A space-sweep approach to true multi-image matching, CVPR 1996; H. Hirschmueller, Stereo processing by
semi-global matching and mutual information, TPAMI 2008.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree
from tqdm import tqdm

from datagen.cameras import Camera
from datagen.rasters import Grid

# Side of the correlation window, cells, and of a block of cells that is swept at once, with its margin.
_WINDOW, _BLOCK, _MARGIN = 7, 208, 24
# Photos that vote on a block: the steepest views.
_MAX_VOTERS = 12
_MAX_LEVELS = 128
# What may stand on the ground, as a share of the flying height; levels on either side of the coarse result.
_TALLEST_SHARE, _FINE_LEVELS = 0.45, 12
# Penalties of semi-global matching for a step of one level and for a jump, in units of 1 - correlation.
_STEP_PENALTY, _JUMP_PENALTY = 0.06, 0.5
_DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))
# Below this correlation a cell keeps the base surface: water, moving leaves.
_MIN_CORRELATION = 0.05
# Grey values are noise below this deviation (of 255).
_NOISE = 2.0
_NEIGHBOURS = 12
# Patches narrower than this share of the flying height are taken for mismatches where they stand off by a step.
_SPECKLE_SHARE, _SPECKLE_STEP_M, _SPECKLE_UNIT_M, _NO_HEIGHT = 0.06, 1.0, 0.05, -32768


@dataclass(frozen=True)
class SurveyPhoto:
    """A pinhole photo for matching: camera in the grid's frame, grey float32 [H, W] of the camera's size."""

    camera: Camera
    grey_HW: np.ndarray

    def project(self, points_N3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [N, 2] (continuous) and depths [N] of points, float64."""
        return project(self.camera, points_N3)

    def halved(self) -> SurveyPhoto:
        """The photo at half its size."""
        width, height = self.camera.width // 2, self.camera.height // 2
        K_33 = np.diag([width / self.camera.width, height / self.camera.height, 1.0]) @ self.camera.K_33
        grey_HW = cv2.resize(self.grey_HW, (width, height), interpolation=cv2.INTER_AREA)
        return SurveyPhoto(replace(self.camera, K_33=K_33, width=width, height=height), grey_HW)


def project(camera: Camera, points_N3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, 2] (continuous) and depths [N] of points in a pinhole camera; depths up to 0 are behind it."""
    cam_N3 = (points_N3 - camera.world_from_cam_44[:3, 3]) @ camera.world_from_cam_44[:3, :3]
    depth_N = cam_N3[:, 2]
    safe_N = np.maximum(depth_N, 1e-6)
    x = camera.K_33[0, 0] * cam_N3[:, 0] / safe_N + camera.K_33[0, 2]
    y = camera.K_33[1, 1] * cam_N3[:, 1] / safe_N + camera.K_33[1, 2]
    return np.stack((x, y), 1), depth_N


def without_outliers(points_N3: np.ndarray) -> np.ndarray:
    """Points whose height is that of the points around them, give or take five times their spread."""
    if len(points_N3) <= _NEIGHBOURS:
        return points_N3
    _, near = cKDTree(points_N3[:, :2]).query(points_N3[:, :2], k=_NEIGHBOURS + 1)
    z_NK = points_N3[near[:, 1:], 2]
    middle = np.median(z_NK, axis=1)
    spread = np.median(np.abs(z_NK - middle[:, None]), axis=1)
    floor = np.median(spread)
    return points_N3[np.abs(points_N3[:, 2] - middle) <= 5 * np.maximum(spread, floor) + 1e-6]


def base_surface(points_N3: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Heights float64 [rows, cols] interpolated between sparse points, and where that is inside their outline.

    Outside, the nearest point's height stands.
    """
    x_rc, y_rc = _centres(grid)
    heights_rc = LinearNDInterpolator(points_N3[:, :2], points_N3[:, 2])(x_rc, y_rc)
    inside_rc = np.isfinite(heights_rc)
    nearest = NearestNDInterpolator(points_N3[:, :2], points_N3[:, 2])
    heights_rc[~inside_rc] = nearest(x_rc[~inside_rc], y_rc[~inside_rc])
    return heights_rc, inside_rc


def _centres(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    x_c = grid.left + (np.arange(grid.cols) + 0.5) * grid.step_x
    y_r = grid.top - (np.arange(grid.rows) + 0.5) * grid.step_y
    return np.meshgrid(x_c, y_r)


@dataclass(frozen=True)
class Sweep:
    """Heights float32 [rows, cols] with NaN where too few photos look; shares of the cells that were matched and seen."""

    heights_rc: np.ndarray
    matched: float
    seen: float


def swept_surface(points_N3: np.ndarray, photos: Sequence[SurveyPhoto], grid: Grid) -> Sweep:
    """Surface model on a grid: a wide sweep on cells of twice the size, then a fine one about its result.

    Args:
        points_N3: sparse points in the grid's frame. photos: those that may vote.
        grid: about three pixels on the ground per cell.
    Returns:
        heights where two photos look or sparse points stand around; NaN elsewhere.
    """
    points_N3 = without_outliers(points_N3)
    half = Grid(grid.left, grid.top, 2 * grid.step_x, 2 * grid.step_y, -(-grid.rows // 2), -(-grid.cols // 2))
    base_rc, inside_rc = base_surface(points_N3, half)
    # The sweep bends with the terrain and not with single points.
    smooth_rc = cv2.GaussianBlur(base_rc.astype(np.float32), (0, 0), max(2.0, 3.0 / half.step_x))
    offsets_K = _wide_levels(points_N3, smooth_rc, photos, half)
    heights_rc, _, _ = _swept([photo.halved() for photo in photos], smooth_rc, base_rc, half, offsets_K, "surface, coarse")
    heights_rc = without_speckles(heights_rc, (_SPECKLE_SHARE * _flying_height(points_N3, photos) / half.step_x) ** 2)
    wide = np.kron(heights_rc, np.ones((2, 2), np.float32))[: grid.rows, : grid.cols]
    step = grid.step_x / 1.5
    offsets_K = np.arange(-_FINE_LEVELS, _FINE_LEVELS + 1) * step
    bent_rc = cv2.GaussianBlur(wide, (0, 0), 1.0)
    heights_rc, matched_rc, seen_rc = _swept(photos, bent_rc, wide, grid, offsets_K, "surface, fine")
    inside_rc = np.kron(inside_rc, np.ones((2, 2), bool))[: grid.rows, : grid.cols]
    heights_rc[~(seen_rc | inside_rc)] = np.nan
    return Sweep(heights_rc, float(matched_rc.mean()), float(seen_rc.mean()))


def _swept(photos, bent_rc, otherwise_rc, grid: Grid, offsets_K, what: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One sweep at heights bent + offset: heights (`otherwise` where nothing matches), matched, seen twice; [rows, cols]."""
    heights_rc = otherwise_rc.astype(np.float32)
    matched_rc, seen_rc = (np.zeros(heights_rc.shape, bool) for _ in range(2))
    for inner, outer, part in tqdm(list(_blocks(grid)), desc=what, unit="block"):
        correlation_KRC, count_RC = _votes(photos, bent_rc[outer], part, offsets_K)
        level_RC, best_RC = _semi_global(correlation_KRC)
        keep_RC = (count_RC >= 2) & (best_RC >= _MIN_CORRELATION)
        swept_RC = bent_rc[outer] + np.interp(level_RC, np.arange(len(offsets_K)), offsets_K)
        local = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
        heights_rc[inner] = np.where(keep_RC, swept_RC, otherwise_rc[outer])[local]
        matched_rc[inner], seen_rc[inner] = keep_RC[local], (count_RC >= 2)[local]
    return cv2.medianBlur(heights_rc, 5), matched_rc, seen_rc


def _wide_levels(points_N3, smooth_rc: np.ndarray, photos: Sequence[SurveyPhoto], grid: Grid) -> np.ndarray:
    """Heights above the smooth base that are tried: what points span, and trees and roofs that may hold no point."""
    column = np.clip(grid.columns(points_N3[:, 0]), 0, grid.cols - 1).astype(int)
    row = np.clip(grid.rows_of(points_N3[:, 1]), 0, grid.rows - 1).astype(int)
    above_N = points_N3[:, 2] - smooth_rc[row, column]
    flying_m = _flying_height(points_N3, photos)
    low, high = np.percentile(above_N, [0.5, 99.5])
    low, high = low - 0.03 * flying_m, max(high + 0.03 * flying_m, _TALLEST_SHARE * flying_m)
    step = max(grid.step_x, (high - low) / (_MAX_LEVELS - 1))
    return np.arange(low, high + step, step)


def _flying_height(points_N3: np.ndarray, photos: Sequence[SurveyPhoto]) -> float:
    """Median height of the photos over the points, metres."""
    return float(np.median([photo.camera.world_from_cam_44[2, 3] for photo in photos]) - np.median(points_N3[:, 2]))


def without_speckles(heights_rc: np.ndarray, cells: float) -> np.ndarray:
    """Heights in which patches of fewer cells, told off by steps of a metre, take the height of the nearest other cell.

    Two photos that agree by chance (a car that moved, leaves, water) raise towers that nothing else supports.
    """
    steps_rc = np.clip(np.rint((heights_rc - np.median(heights_rc)) / _SPECKLE_UNIT_M), -32000, 32000).astype(np.int16)
    cv2.filterSpeckles(steps_rc, _NO_HEIGHT, int(cells), round(_SPECKLE_STEP_M / _SPECKLE_UNIT_M))
    speckle_rc = steps_rc == _NO_HEIGHT
    if speckle_rc.all():
        return heights_rc
    rows, cols = distance_transform_edt(speckle_rc, return_distances=False, return_indices=True)
    return heights_rc[rows, cols]


def _blocks(grid: Grid) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], Grid]]:
    """Parts of the grid: their own cells, those with a margin around, and the grid of the latter."""
    for row in range(0, grid.rows, _BLOCK):
        for col in range(0, grid.cols, _BLOCK):
            inner = slice(row, min(row + _BLOCK, grid.rows)), slice(col, min(col + _BLOCK, grid.cols))
            outer = tuple(
                slice(max(0, s.start - _MARGIN), min(size, s.stop + _MARGIN))
                for s, size in zip(inner, (grid.rows, grid.cols), strict=True)
            )
            size = outer[0].stop - outer[0].start, outer[1].stop - outer[1].start
            yield inner, outer, grid.part(outer[0].start, outer[1].start, *size)


def _voters(photos: Sequence[SurveyPhoto], smooth_RC: np.ndarray, part: Grid) -> list[SurveyPhoto]:
    """The photos that see a block, steepest first."""
    x_RC, y_RC = _centres(part)
    corner = np.stack([a[:: max(1, part.rows // 8), :: max(1, part.cols // 8)].ravel() for a in (x_RC, y_RC, smooth_RC)], 1)
    centre_3 = corner.mean(axis=0)
    ranked = []
    for order, photo in enumerate(photos):
        pixel_N2, depth_N = photo.project(corner)
        size_2 = (photo.camera.width, photo.camera.height)
        inside = ((pixel_N2 >= 0) & (pixel_N2 < size_2)).all(axis=1) & (depth_N > 0)
        if inside.any():
            ray_3 = centre_3 - photo.camera.world_from_cam_44[:3, 3]
            ranked.append((np.hypot(*ray_3[:2]) / max(-ray_3[2], 1e-6) - inside.mean(), order))
    return [photos[order] for _, order in sorted(ranked)[:_MAX_VOTERS]]


def _votes(
    photos: Sequence[SurveyPhoto], smooth_RC: np.ndarray, part: Grid, offsets_K: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean correlation float32 [K, R, C] of the pairs of photos at every level, and how many photos see a cell."""
    x_RC, y_RC = _centres(part)
    voters = _voters(photos, smooth_RC, part)
    correlation_KRC = np.zeros((len(offsets_K), *smooth_RC.shape), np.float32)
    seen_RC = np.zeros(smooth_RC.shape, np.float32)
    for level, offset in enumerate(offsets_K):
        points_N3 = np.stack((x_RC.ravel(), y_RC.ravel(), (smooth_RC + offset).ravel()), 1)
        total, squares, count = (np.zeros(smooth_RC.shape, np.float32) for _ in range(3))
        for photo in voters:
            normal_RC, valid_RC = _normalised(photo, points_N3, smooth_RC.shape)
            total += normal_RC
            squares += normal_RC * normal_RC
            count += valid_RC
        pairs = np.maximum(count * (count - 1), 1)
        correlation_KRC[level] = cv2.blur((total * total - squares) / pairs, (_WINDOW, _WINDOW))
        seen_RC = np.maximum(seen_RC, count)
    return correlation_KRC, seen_RC


def _normalised(photo: SurveyPhoto, points_N3: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Grey values that a photo shows at points, less their local mean, over their local deviation; 0 where it has none."""
    pixel_N2, depth_N = photo.project(points_N3)
    map_RC2 = (pixel_N2 - 0.5).astype(np.float32).reshape(*shape, 2)
    height, width = photo.grey_HW.shape
    inside_N = (pixel_N2 > 1).all(axis=1) & (pixel_N2 < (width - 1, height - 1)).all(axis=1) & (depth_N > 0)
    valid_RC = cv2.erode(inside_N.reshape(shape).astype(np.uint8), np.ones((_WINDOW, _WINDOW), np.uint8)).astype(np.float32)
    grey_RC = cv2.remap(photo.grey_HW, map_RC2, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mean_RC = cv2.blur(grey_RC, (_WINDOW, _WINDOW))
    variance_RC = np.maximum(cv2.blur(grey_RC * grey_RC, (_WINDOW, _WINDOW)) - mean_RC * mean_RC, 0)
    return (grey_RC - mean_RC) / np.sqrt(variance_RC + _NOISE**2) * valid_RC, valid_RC


def _semi_global(correlation_KRC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level [R, C] (fractional) that semi-global matching chooses, and the correlation there."""
    cost_RCK = np.ascontiguousarray((1 - correlation_KRC).transpose(1, 2, 0))
    total_RCK = np.zeros_like(cost_RCK)
    for direction in _DIRECTIONS:
        _add_paths(total_RCK, cost_RCK, direction)
    level_RC = total_RCK.argmin(axis=2)
    rows, cols = np.indices(level_RC.shape)
    best_RC = 1 - cost_RCK[rows, cols, level_RC]
    inner_RC = np.clip(level_RC, 1, total_RCK.shape[2] - 2)
    below, here, above = (total_RCK[rows, cols, inner_RC + step] for step in (-1, 0, 1))
    bend = below - 2 * here + above
    shift_RC = np.where((level_RC == inner_RC) & (bend > 1e-6), 0.5 * (below - above) / np.maximum(bend, 1e-6), 0)
    return level_RC + np.clip(shift_RC, -0.5, 0.5), best_RC


def _add_paths(total_RCK: np.ndarray, cost_RCK: np.ndarray, direction: tuple[int, int]) -> None:
    """Adds the cheapest costs of reaching every cell along one direction."""
    down, right = direction
    if down == 0:  # along rows: the same along columns of the transposed grid
        total_RCK, cost_RCK, (down, right) = total_RCK.transpose(1, 0, 2), cost_RCK.transpose(1, 0, 2), (right, 0)
    rows = range(len(cost_RCK)) if down > 0 else range(len(cost_RCK) - 1, -1, -1)
    previous_CK = None
    for row in rows:
        path_CK = cost_RCK[row].copy()
        if previous_CK is not None:
            path_CK += _transition(_shifted(previous_CK, right))
        total_RCK[row] += path_CK
        previous_CK = path_CK


def _shifted(path_CK: np.ndarray, right: int) -> np.ndarray:
    """Paths of the diagonal neighbours; at the border those of the cell above."""
    if right == 0:
        return path_CK
    shifted_CK = path_CK.copy()
    if right > 0:
        shifted_CK[1:] = path_CK[:-1]
    else:
        shifted_CK[:-1] = path_CK[1:]
    return shifted_CK


def _transition(path_CK: np.ndarray) -> np.ndarray:
    """Least cost to come from a neighbour's levels, less its least (so that sums stay small)."""
    least_C1 = path_CK.min(axis=1, keepdims=True)
    cheapest_CK = np.minimum(path_CK, least_C1 + np.float32(_JUMP_PENALTY))
    np.minimum(cheapest_CK[:, 1:], path_CK[:, :-1] + np.float32(_STEP_PENALTY), out=cheapest_CK[:, 1:])
    np.minimum(cheapest_CK[:, :-1], path_CK[:, 1:] + np.float32(_STEP_PENALTY), out=cheapest_CK[:, :-1])
    return cheapest_CK - least_C1
