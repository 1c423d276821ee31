"""A pose to start patches from where the coarse one is too far off for them: by keypoints, in a much wider render."""

from __future__ import annotations

import numpy as np

import dsacstar
from geometry.grid import grid_size
from localization.geodata import Geodata
from localization.matchers import Matcher, PixelPairs
from localization.working import WorkingPhoto

# How much wider than the photo the render is on each side, in units of the shorter side: with a field of view of 60 degrees
# a camera that is turned by 25 degrees.
_MARGIN = 0.5
# The solver looks through cells of this size, px.
_STRIDE_PX = 2
# What the solver takes as agreeing, and where errors are clamped, px at the reference height.
_THRESHOLD_PX, _CLAMP_PX = 4.0, 20.0
# Fewer agreeing pairs are chance.
_FEWEST_PAIRS = 10


def pose_from_pairs(
    photo: WorkingPhoto,
    world_from_cam_44: np.ndarray,
    geodata: Geodata,
    matcher: Matcher,
    priors: dsacstar.Priors | None = None,
    seed: int = 0,
) -> np.ndarray | None:
    """The pose that what a photo and one render have in common agrees with; None where that is too little.

    Args:
        world_from_cam_44: where the map is rendered. priors, seed: the solver's.
    """
    seen = photo.render(geodata, world_from_cam_44, round(_MARGIN * photo.shorter_side))
    pairs = matcher(photo.image_HW3, seen.view.rgb_HW3)
    cells_N2, render_N2 = _in_cells(pairs)
    points_N3 = seen.points(render_N2)
    known_N = np.isfinite(points_N3).all(axis=1)
    if known_N.sum() < _FEWEST_PAIRS:
        return None
    columns, rows = cells_N2[known_N].T
    shape = grid_size(*photo.image_HW3.shape[:2], _STRIDE_PX)
    points_3hw, sigma_hw, mask_hw = np.zeros((3, *shape)), np.ones(shape, np.float32), np.zeros(shape, bool)
    points_3hw[:, rows, columns], sigma_hw[rows, columns] = points_N3[known_N].T, pairs.sigma_N[known_N]
    mask_hw[rows, columns] = True
    options = dsacstar.RansacOptions(
        threshold_px=_THRESHOLD_PX * photo.scale,
        max_reprojection_px=_CLAMP_PX * photo.scale,
        subsampling=_STRIDE_PX,
        residual="pixel",
        threads=1,
    )
    result = dsacstar.solve(
        points_3hw[None], photo.K_33, options=options, sigma=sigma_hw[None], mask=mask_hw[None], priors=priors, seed=seed
    )[0]
    return result.pose if result.success and result.inliers >= _FEWEST_PAIRS else None


def _in_cells(pairs: PixelPairs) -> tuple[np.ndarray, np.ndarray]:
    """Cells (column, row) that the photo's pixels lie in, [N, 2], and the render's pixels that belong to the cells' centres.

    By less than a cell both pictures move alike, nearly.
    """
    cells_N2 = np.floor(pairs.photo_N2 / _STRIDE_PX).astype(int)
    return cells_N2, pairs.render_N2 + _STRIDE_PX * (cells_N2 + 0.5) - pairs.photo_N2
