"""The modern face: batches, intrinsics per image, masks, uncertainties, structured results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dsacstar import _core
from dsacstar.arrays import as_numpy, check_shape, float_array, is_tensor, real_number, whole_number

MOST_HYPOTHESES = 1_000_000
LARGEST_SEED = 2**64 - 1


@dataclass(frozen=True)
class RansacOptions:
    """How to search for a pose.

    Attributes:
        hypotheses: minimal samples that become hypotheses.
        threshold_px: reprojection error below which a cell is an inlier, pixels.
        inlier_alpha: scale of the reported score, inlier_alpha / cells * soft inlier count.
        max_reprojection_px: reprojection errors are clamped here, pixels.
        subsampling: pixels per cell; cell (i, j) looks through ((j + 1/2) s, (i + 1/2) s).
        max_tries: samples drawn per hypothesis until one agrees with its own fourth cell; the best is kept if none does.
        candidates: hypotheses that are refined on a subset of the cells before the best one is refined on all.
        max_rounds: refinement rounds over all cells, at most.
        threads: worker threads over the images of a batch; 0 means one per CPU. Never changes the answer.
    """

    hypotheses: int = 64
    threshold_px: float = 10.0
    inlier_alpha: float = 100.0
    max_reprojection_px: float = 100.0
    subsampling: float = 8.0
    max_tries: int = 16
    candidates: int = 4
    max_rounds: int = 100
    threads: int = 0

    def __post_init__(self) -> None:
        whole_number(self.hypotheses, "hypotheses", 1, MOST_HYPOTHESES)
        real_number(self.threshold_px, "threshold_px", above=0.0)
        real_number(self.inlier_alpha, "inlier_alpha", least=0.0)
        real_number(self.max_reprojection_px, "max_reprojection_px", above=0.0)
        real_number(self.subsampling, "subsampling", above=0.0)
        whole_number(self.max_tries, "max_tries", 1, 100_000)
        whole_number(self.candidates, "candidates", 1, 1024)
        whole_number(self.max_rounds, "max_rounds", 1, 10_000)
        whole_number(self.threads, "threads", 0, 1024)


@dataclass(frozen=True)
class Result:
    """One image's answer.

    Attributes:
        pose: [4, 4] float64, world from camera (OpenCV axes, metres); the identity without success.
        success: whether a pose was found that more cells agree with than chance explains.
        inliers: cells whose reprojection error is below the threshold.
        inlier_mask: [h, w] bool.
        score: inlier_alpha / cells * soft inlier count.
        rounds: refinement rounds spent.
        covariance: [6, 6] of (rotation vector in the camera frame in radians, camera centre in the world in metres).
        seconds: time spent on this image.
    """

    pose: np.ndarray
    success: bool
    inliers: int
    inlier_mask: np.ndarray
    score: float
    rounds: int
    covariance: np.ndarray
    seconds: float


def solve(
    scene_coords_B3hw: Any,
    intrinsics: Any,
    *,
    options: RansacOptions | None = None,
    weights: Any = None,
    mask: Any = None,
    seed: int = 0,
) -> list[Result]:
    """Camera poses of a batch of scene-coordinate maps.

    Args:
        scene_coords_B3hw: predicted world coordinates, metres. Cells that are not finite do not take part.
        intrinsics: fx fy cx cy in pixels: [4] or [3, 3] for all images, [B, 4] or [B, 3, 3] per image.
        options: see RansacOptions.
        weights: standard deviation of the coordinates in metres, [B, h, w] or [B, 1, h, w] (the network's
            uncertainty); used in sampling, scoring and refinement. Its overall scale does not matter.
        mask: true where a cell may be used, [B, h, w] or [B, 1, h, w].
        seed: same seed, same answer, for any number of threads.
    Returns:
        One Result per image.
    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or range, named.
    Source: DSAC*, Brachmann & Rother, TPAMI 2021; the refinement is documented in the package's README.
    """
    options = RansacOptions() if options is None else options
    if not isinstance(options, RansacOptions):
        raise TypeError(f"options must be RansacOptions, not {type(options).__name__}")
    coords_B3hw = float_array(scene_coords_B3hw, "scene_coords_B3hw", (None, 3, None, None))
    images, _, height, width = coords_B3hw.shape
    intrinsics_B4 = intrinsics_array(intrinsics, images)
    sigma_Bhw = None
    if weights is not None:
        sigma_Bhw = float_array(plane(weights, "weights"), "weights", (images, height, width))
    mask_Bhw = None
    if mask is not None:
        mask_Bhw = plane(mask, "mask")
        check_shape(mask_Bhw, "mask", (images, height, width))
        if mask_Bhw.dtype.kind not in "biu":
            raise TypeError(f"mask must be bool or integer, not {mask_Bhw.dtype}")
        mask_Bhw = np.ascontiguousarray(mask_Bhw != 0).view(np.uint8)
    rows = _core.solve(
        scene_coords=coords_B3hw,
        camera_coords=None,
        intrinsics=intrinsics_B4,
        sigma=sigma_Bhw,
        mask=mask_Bhw,
        subsampling=float(options.subsampling),
        hypotheses=int(options.hypotheses),
        threshold=float(options.threshold_px),
        inlier_alpha=float(options.inlier_alpha),
        max_error=float(options.max_reprojection_px),
        max_tries=int(options.max_tries),
        candidates=int(options.candidates),
        max_rounds=int(options.max_rounds),
        threads=int(options.threads),
        seed=whole_number(seed, "seed", 0, LARGEST_SEED),
    )
    return [
        Result(pose, success, inliers, mask_hw.astype(bool), score, rounds, covariance, seconds)
        for success, pose, inliers, mask_hw, score, rounds, covariance, seconds in rows
    ]


def plane(value: Any, name: str) -> np.ndarray:
    """[B, 1, h, w] as [B, h, w]; other shapes as they are."""
    array = as_numpy(value, name)
    return array[:, 0] if array.ndim == 4 and array.shape[1] == 1 else array


def intrinsics_array(intrinsics: Any, images: int) -> np.ndarray:
    """[B, 4] float64 fx fy cx cy from any accepted form.

    Raises:
        TypeError, ValueError: not numbers, not a known shape, skewed, not finite, or a focal length that is not positive.
    """
    if not is_tensor(intrinsics) and not isinstance(intrinsics, np.ndarray):
        try:
            intrinsics = np.asarray(intrinsics, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError("intrinsics must be numbers: fx fy cx cy or a 3x3 matrix") from None
    array = as_numpy(intrinsics, "intrinsics")
    if array.dtype.kind not in "fiu":
        raise TypeError(f"intrinsics must hold real numbers, not {array.dtype}")
    array = array.astype(np.float64)
    if array.shape in {(4,), (3, 3)}:
        array = np.broadcast_to(array, (images, *array.shape))
    if array.shape == (images, 3, 3):
        skew = np.abs(array[:, [0, 1, 2, 2], [1, 0, 0, 1]]).max(initial=0.0)
        if skew > 0 or np.any(array[:, 2, 2] != 1):
            raise ValueError("intrinsics as 3x3 must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
        array = array[:, [0, 1, 0, 1], [0, 1, 2, 2]]
    if array.shape != (images, 4):
        raise ValueError(f"intrinsics has shape {list(array.shape)}, expected [4], [3, 3], [{images}, 4] or [{images}, 3, 3]")
    if not np.isfinite(array).all():
        raise ValueError("intrinsics must be finite")
    if not (array[:, :2] > 0).all():
        raise ValueError(f"intrinsics: focal lengths must be positive, got {array[:, :2].min()}")
    return np.ascontiguousarray(array)
