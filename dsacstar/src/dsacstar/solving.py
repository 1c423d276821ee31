"""The modern face: batches, intrinsics per image, masks, uncertainties, structured results."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from dsacstar import _core
from dsacstar.arrays import as_numpy, check_clamp, check_shape, float_array, is_tensor, real_number, whole_number


class TensorLike(Protocol):
    """A torch CPU tensor, without torch: a type checker that does not find torch takes its tensors for anything."""

    def detach(self) -> Any: ...
    def numpy(self) -> Any: ...


if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    # What arrays may come as: of real numbers, on the CPU.
    ArrayLike = NDArray[Any] | TensorLike | Sequence[float] | Sequence[Sequence[float]]

MOST_HYPOTHESES = 1_000_000
LARGEST_SEED = 2**64 - 1
RESIDUALS = ("metric", "pixel")
CM_PER_M = 100.0
FARTHEST_M = 1e8  # coordinates farther out carry nothing, as in the core


@dataclass(frozen=True)
class RansacOptions:
    """How to search for a pose.

    Attributes:
        hypotheses: minimal samples that become hypotheses, unless fewer are enough to be sure.
        threshold_px: reprojection error below which a cell is an inlier, pixels.
        inlier_alpha: scale of the reported score, inlier_alpha / cells * soft inlier count.
        max_reprojection_px: reprojection errors are clamped here, pixels; at least threshold_px.
        subsampling: pixels per cell; cell (i, j) looks through ((j + 1/2) s, (i + 1/2) s).
        max_tries: samples drawn per hypothesis until one agrees with its own fourth cell; the best is kept if none does.
        candidates: hypotheses that are refined on a subset of the cells before the best one is refined on all.
        max_rounds: refinement rounds over all cells, at most.
        threads: worker threads over the images of a batch; 0 means one per CPU. Never changes the answer.
        max_hypotheses: hypotheses drawn where inliers are rare; below `hypotheses` it has no effect.
        residual: what refinement takes as noise: "metric", the predicted coordinates' distance from their rays in metres
            (networks; whether it grows with the depth is measured), or "pixel", the reprojection error (exact points, noisy
            pixels: classical PnP).
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
    max_hypotheses: int = 1024
    residual: Literal["metric", "pixel"] = "metric"

    def __post_init__(self) -> None:
        whole_number(self.hypotheses, "hypotheses", 1, MOST_HYPOTHESES)
        real_number(self.threshold_px, "threshold_px", above=0.0)
        real_number(self.inlier_alpha, "inlier_alpha", least=0.0)
        check_clamp(self.max_reprojection_px, "max_reprojection_px", self.threshold_px, "threshold_px")
        real_number(self.subsampling, "subsampling", above=0.0)
        whole_number(self.max_tries, "max_tries", 1, 100_000)
        whole_number(self.candidates, "candidates", 1, 1024)
        whole_number(self.max_rounds, "max_rounds", 1, 10_000)
        whole_number(self.threads, "threads", 0, 1024)
        whole_number(self.max_hypotheses, "max_hypotheses", 1, MOST_HYPOTHESES)
        if self.residual not in RESIDUALS:
            raise ValueError(f"residual is {self.residual!r}; choose from {list(RESIDUALS)}")


@dataclass(frozen=True)
class Alternative:
    """A second pose that many cells agree with which the answer leaves unexplained.

    Attributes:
        pose: [4, 4] float64, world from camera.
        score_ratio: its agreeing cells over the answer's, in (0, 1]: near 1 the images's evidence cannot tell them apart.
    """

    pose: np.ndarray
    score_ratio: float


@dataclass(frozen=True)
class Result:
    """One image's answer.

    Attributes:
        pose: [4, 4] float64, world from camera (OpenCV axes, metres): the best pose found, with or without success; the
            identity where no sample gave a pose at all.
        success: whether the pose explains more cells than chance does.
        inliers: cells whose reprojection error is below the threshold.
        inlier_mask: [h, w] bool.
        score: inlier_alpha / cells * soft inlier count.
        rounds: refinement rounds spent.
        covariance: [6, 6] of (rotation vector in the camera frame in radians, camera centre in the world in metres), with
            the errors' correlation over the image taken into account; infinite where it is not known.
        seconds: time spent on this image.
        confidence: in [0, 1]: probability that the pose is not chance, is not the weaker of two structures, and is off
            by less than 3 % of the distance to the scene.
        alternative: a second structure, or None.
        sigma_power: to which power sigma was found to tell the residuals' spread: 0 not at all, 1 as given.
        depth_power: to which power of the depth the noise was found to grow: 0 as noise of the coordinates, 1 as noise of
            pixels; 0 with sigma, residual="pixel" or measured coordinates, where it is not asked.
        noise: measured standard deviation of the inliers' residuals, metres (pixels with residual="pixel"); where it grows
            with the depth, at the median one.
        hypotheses: how many were drawn.
    """

    pose: np.ndarray
    success: bool
    inliers: int
    inlier_mask: np.ndarray
    score: float
    rounds: int
    covariance: np.ndarray
    seconds: float
    confidence: float
    alternative: Alternative | None
    sigma_power: float
    depth_power: float
    noise: float
    hypotheses: int


@dataclass(frozen=True)
class Priors:
    """What is known about the camera beforehand; every part is optional, for all images or [B, ...] one each.

    Attributes:
        position: camera centre (mean [3], covariance [3, 3]) in the world, metres.
        gravity: (direction [3] in which gravity pulls in camera axes, standard deviation in degrees).
        gravity_world: that direction in the world; default (0, 0, -1).
        height: (z of the camera centre in the world, standard deviation), metres.
    """

    position: tuple[Any, Any] | None = None
    gravity: tuple[Any, Any] | None = None
    gravity_world: Any = (0.0, 0.0, -1.0)
    height: tuple[Any, Any] | None = None


def solve(
    scene_coords_B3hw: ArrayLike,
    intrinsics: ArrayLike | None = None,
    *,
    options: RansacOptions | None = None,
    sigma: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    seed: int = 0,
    camera_coords_B3hw: ArrayLike | None = None,
    priors: Priors | None = None,
    weights: ArrayLike | None = None,
) -> list[Result]:
    """Camera poses of a batch of scene-coordinate maps.

    Args:
        scene_coords_B3hw: predicted world coordinates, metres. Cells that are not finite do not take part. float64 keeps
            its precision far from the origin.
        intrinsics: fx fy cx cy in pixels: [4] or [3, 3] for all images, [B, 4] or [B, 3, 3] per image. Not needed with
            camera_coords_B3hw.
        options: see RansacOptions.
        sigma: standard deviation of the coordinates in metres, [B, h, w] or [B, 1, h, w] (the network's uncertainty).
            Its overall scale does not matter; what its differences are worth is measured on the residuals. 0 and infinity
            take a cell out.
        mask: true where a cell may be used, [B, h, w] or [B, 1, h, w].
        seed: same seed, same answer, for any number of threads and wherever in the batch the image is.
        camera_coords_B3hw: measured camera coordinates, metres (RGB-D); (0, 0, 0) is no measurement. The thresholds are
            then 3D distances, options.threshold_px and max_reprojection_px in centimetres.
        priors: what is known about the camera beforehand.
        weights: old name of `sigma`; deprecated.
    Returns:
        One Result per image.
    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or range, named; sigma negative or NaN.
    Source: DSAC*, Brachmann & Rother, TPAMI 2021; the refinement is documented in the package's README.
    """
    options = RansacOptions() if options is None else options
    if not isinstance(options, RansacOptions):
        raise TypeError(f"options must be RansacOptions, not {type(options).__name__}")
    if weights is not None:
        if sigma is not None:
            raise TypeError("give sigma or its old name weights, not both")
        warnings.warn(
            "the argument 'weights' is now called 'sigma': standard deviations in metres", DeprecationWarning, stacklevel=2
        )
        sigma = weights
    coords_B3hw, origins_B3 = near_origin(scene_coords_B3hw)
    images, _, height, width = coords_B3hw.shape
    camera_B3hw = None
    intrinsics_B4 = None
    unit = 1.0
    if camera_coords_B3hw is not None:
        camera_B3hw = float_array(camera_coords_B3hw, "camera_coords_B3hw", coords_B3hw.shape)
        unit = CM_PER_M
    elif intrinsics is None:
        raise TypeError("intrinsics are needed unless camera_coords_B3hw are given")
    else:
        intrinsics_B4 = intrinsics_array(intrinsics, images)
    rows = _core.solve(
        scene_coords=coords_B3hw,
        camera_coords=camera_B3hw,
        intrinsics=intrinsics_B4,
        sigma=None
        if sigma is None
        else sigma_array(sigma, "sigma" if weights is None else "weights", (images, height, width)),
        mask=None if mask is None else mask_array(mask, (images, height, width)),
        priors=None if priors is None else prior_rows(priors, origins_B3),
        subsampling=float(options.subsampling),
        hypotheses=int(options.hypotheses),
        most_hypotheses=int(options.max_hypotheses),
        threshold=float(options.threshold_px) / unit,
        inlier_alpha=float(options.inlier_alpha),
        max_error=float(options.max_reprojection_px) / unit,
        max_tries=int(options.max_tries),
        candidates=int(options.candidates),
        max_rounds=int(options.max_rounds),
        pixel_residual=options.residual == "pixel",
        threads=int(options.threads),
        seed=whole_number(seed, "seed", 0, LARGEST_SEED),
    )
    return [result_of(row, origin_3) for row, origin_3 in zip(rows, origins_B3)]


def result_of(row: dict[str, Any], origin_3: np.ndarray) -> Result:
    """A Result from the core's answer, whose world is relative to origin_3."""
    pose, other = row["pose"], row.pop("alternative_pose")
    ratio = row.pop("alternative_ratio")
    found = np.isfinite(row["covariance"]).all() or not np.array_equal(pose, np.eye(4))
    if found:
        pose[:3, 3] += origin_3
    if other is not None:
        other[:3, 3] += origin_3
    alternative = None if other is None else Alternative(other, ratio)
    row["inlier_mask"] = row["inlier_mask"].astype(bool)
    return Result(alternative=alternative, **row)


def near_origin(
    scene_coords_B3hw: Any, name: str = "scene_coords_B3hw", images: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(float32 coordinates, [B, 3] float64 origins that were taken off): float64 input keeps what float32 would round."""
    given = as_numpy(scene_coords_B3hw, name)
    if given.dtype.kind != "f" or given.dtype.itemsize <= 4 or given.size == 0:
        coords_B3hw = float_array(given, name, (images, 3, None, None))
        return coords_B3hw, np.zeros((len(coords_B3hw), 3))
    check_shape(given, name, (images, 3, None, None))
    images = len(given)
    with np.errstate(all="ignore"):
        rounded = given.astype(np.float32)
        if np.array_equal(rounded, given, equal_nan=True):
            return np.ascontiguousarray(rounded), np.zeros((images, 3))
        middle = np.where(np.abs(given) < FARTHEST_M, given, np.nan).reshape(images, 3, -1)
        counts = np.maximum(np.isfinite(middle).sum(axis=2), 1)
        origins_B3 = np.round(np.nansum(middle, axis=2) / counts)
        near = given - origins_B3[:, :, None, None]
    return float_array(near, name, (images, 3, None, None)), origins_B3


def sigma_array(sigma: Any, name: str, shape: tuple[int, int, int]) -> np.ndarray:
    """[B, h, w] float32 standard deviations.

    Raises:
        ValueError: wrong shape, negative or NaN.
    """
    sigma_Bhw = float_array(plane(sigma, name), name, shape)
    if np.isnan(sigma_Bhw).any() or (sigma_Bhw < 0).any():
        raise ValueError(
            f"{name} holds negative or NaN values: standard deviations are 0 or more (infinity or mask take a cell out)"
        )
    return sigma_Bhw


def mask_array(mask: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """[B, h, w] uint8, 1 where a cell may be used."""
    mask_Bhw = plane(mask, "mask")
    check_shape(mask_Bhw, "mask", shape)
    if mask_Bhw.dtype.kind not in "biu":
        raise TypeError(f"mask must be bool or integer, not {mask_Bhw.dtype}")
    return np.ascontiguousarray(mask_Bhw != 0).view(np.uint8)


def prior_rows(priors: Priors, origins_B3: np.ndarray) -> np.ndarray:
    """[B, 19] as the core takes them: position, its information, gravity in the world, in the camera, its information.

    Raises:
        TypeError, ValueError: a part of the wrong type, shape or range, named.
    """
    if not isinstance(priors, Priors):
        raise TypeError(f"priors must be Priors, not {type(priors).__name__}")
    images = len(origins_B3)
    rows = np.zeros((images, 19))
    information_B33 = np.zeros((images, 3, 3))
    pull_B3 = np.zeros((images, 3))  # information times mean, summed over what is known
    if priors.position is not None:
        mean_B3, covariance_B33 = prior_pair(priors.position, "position", (3,), (3, 3), images)
        if np.abs(covariance_B33 - covariance_B33.swapaxes(1, 2)).max(initial=0.0) > 1e-6 * np.abs(covariance_B33).max(
            initial=0.0
        ):
            raise ValueError("priors.position: the covariance is not symmetric")
        if images and not np.linalg.eigvalsh(covariance_B33).min() > 0:
            raise ValueError("priors.position: the covariance is not positive definite")
        information_B33 += np.linalg.inv(covariance_B33)
        pull_B3 += (information_B33 @ (mean_B3 - origins_B3)[:, :, None])[:, :, 0]
    if priors.height is not None:
        height_B, sigma_B = prior_pair(priors.height, "height", (), (), images)
        positive(sigma_B, "priors.height")
        information_B33[:, 2, 2] += sigma_B**-2.0
        pull_B3[:, 2] += (height_B - origins_B3[:, 2]) * sigma_B**-2.0
    rows[:, 3:12] = information_B33.reshape(images, 9)
    rows[:, :3] = (np.linalg.pinv(information_B33, hermitian=True) @ pull_B3[:, :, None])[:, :, 0]
    rows[:, 12:15], rows[:, 15:18] = (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)
    if priors.gravity is not None:
        down_B3, sigma_deg_B = prior_pair(priors.gravity, "gravity", (3,), (), images)
        positive(sigma_deg_B, "priors.gravity")
        world_B3 = prior_part(priors.gravity_world, "gravity_world", (3,), images)
        rows[:, 12:15], rows[:, 15:18] = unit_vectors(world_B3, "gravity_world"), unit_vectors(down_B3, "gravity")
        rows[:, 18] = np.radians(sigma_deg_B) ** -2.0
    return rows


def prior_pair(
    pair: Any, name: str, first: tuple[int, ...], second: tuple[int, ...], images: int
) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"priors.{name} must be a pair (value, spread)")
    return prior_part(pair[0], name, first, images), prior_part(pair[1], name, second, images)


def prior_part(value: Any, name: str, shape: tuple[int, ...], images: int) -> np.ndarray:
    """[B, *shape] float64 from one value for all images or one each."""
    try:
        array = np.asarray(value.detach().cpu() if is_tensor(value) else value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"priors.{name} must hold numbers") from None
    if array.shape == shape:
        array = np.broadcast_to(array, (images, *shape))
    if array.shape != (images, *shape):
        raise ValueError(f"priors.{name} has shape {list(array.shape)}, expected {list(shape)} or {[images, *shape]}")
    if not np.isfinite(array).all():
        raise ValueError(f"priors.{name} is not finite")
    return array


def positive(sigma_B: np.ndarray, name: str) -> None:
    if not (sigma_B > 0).all():
        raise ValueError(f"{name}: the standard deviation must be positive, got {sigma_B.min()}")


def unit_vectors(vectors_B3: np.ndarray, name: str) -> np.ndarray:
    lengths_B1 = np.linalg.norm(vectors_B3, axis=1, keepdims=True)
    if not (lengths_B1 > 0).all():
        raise ValueError(f"priors.{name} is a zero vector")
    unit_B3: np.ndarray = vectors_B3 / lengths_B1
    return unit_B3


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
        raise ValueError(
            f"intrinsics has shape {list(array.shape)}, expected [4], [3, 3], [{images}, 4] or [{images}, 3, 3]"
        )
    if not np.isfinite(array).all():
        raise ValueError("intrinsics must be finite")
    if not (array[:, :2] > 0).all():
        raise ValueError(f"intrinsics: focal lengths must be positive, got {array[:, :2].min()}")
    return np.ascontiguousarray(array)
