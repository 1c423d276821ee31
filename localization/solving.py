"""Camera poses from predicted scene coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import dsacstar
from records.options import LARGEST_SEED, between, option, positive

SOLVERS = ("dsacstar", "published")
# The published solver knows one focal length: images whose two differ by more than this share are refused.
_FOCAL_TOLERANCE = 0.01


@dataclass(frozen=True)
class SolverOptions:
    """How poses are found; the fields are the flags."""

    solver: str = option(
        "dsacstar",
        choices=SOLVERS,
        group="pose solver (task coord)",
        help="dsacstar (fx fy cx cy, weighted by the predicted uncertainty) or the published forward_rgb",
    )
    hypotheses: int = option(64, flags=("-hyps",), check=positive, help="pose hypotheses per image")
    threshold: float = option(10.0, flags=("-t",), check=positive, help="inlier threshold in px")
    inlieralpha: float = option(100.0, flags=("-ia",), check=positive, help="scale of the soft inlier count")
    maxpixelerror: float = option(100.0, flags=("-maxerrr",), check=positive, help="clamp of the reprojection error in px")
    seed: int = option(2021, check=between(0, LARGEST_SEED), help="of the hypotheses")

    def __post_init__(self) -> None:
        if self.solver == "dsacstar" and self.maxpixelerror < self.threshold:
            raise ValueError(
                f"--maxpixelerror {self.maxpixelerror:g} is below --threshold {self.threshold:g}: every error would be an "
                "inlier's"
            )


@dataclass(frozen=True)
class EstimatedPose:
    """A pose, or the lack of one.

    Attributes:
        world_from_cam_44: float64; without success the best guess there is, or the identity.
        success: whether a pose was found.
        inliers: cells that agree with it; None where the solver does not say. So are the rest:
        score, confidence, covariance_66, seconds: see `dsacstar.Result`.
    """

    world_from_cam_44: np.ndarray
    success: bool
    inliers: int | None
    score: float | None = None
    confidence: float | None = None
    covariance_66: np.ndarray | None = None
    seconds: float | None = None


def solve_poses(
    coords_B3hw: torch.Tensor,
    sigma_B1hw: torch.Tensor | None,
    K_B33: torch.Tensor,
    options: SolverOptions,
    *,
    stride: int,
    priors: dsacstar.Priors | None = None,
) -> list[EstimatedPose]:
    """One pose per image; deterministic in inputs and options.

    Args:
        coords_B3hw: predicted scene coordinates, metres.
        sigma_B1hw: their standard deviations, metres; used as weights by the 'dsacstar' solver.
        K_B33: intrinsics of the images, pixels.
        stride: pixels per cell; cell (i, j) looks through ((j + 1/2) stride, (i + 1/2) stride).
        priors: what is known of the cameras beforehand; only the 'dsacstar' solver knows what to do with it.
    Raises:
        ValueError: priors or two focal lengths for the published solver.
    """
    coords_B3hw, K_B33 = coords_B3hw.float().cpu().contiguous(), K_B33.double().cpu()
    if options.solver == "published":
        if priors is not None:
            raise ValueError("--solver published takes no priors")
        pairs = zip(coords_B3hw.split(1), K_B33, strict=True)
        return [_solve_published(c_13hw, K_33, options, stride) for c_13hw, K_33 in pairs]
    results = dsacstar.solve(
        coords_B3hw,
        K_B33,
        options=dsacstar.RansacOptions(
            hypotheses=options.hypotheses,
            threshold_px=options.threshold,
            inlier_alpha=options.inlieralpha,
            max_reprojection_px=options.maxpixelerror,
            subsampling=stride,
        ),
        sigma=None if sigma_B1hw is None else sigma_B1hw[:, 0].float().cpu().contiguous(),
        seed=options.seed,
        priors=priors,
    )
    return [_estimated(result) for result in results]


def _estimated(result: dsacstar.Result) -> EstimatedPose:
    return EstimatedPose(
        np.asarray(result.pose, dtype=np.float64), bool(result.success), int(result.inliers), float(result.score),
        float(result.confidence), np.asarray(result.covariance, dtype=np.float64), float(result.seconds),
    )  # fmt: skip


def _solve_published(coords_13hw: torch.Tensor, K_33: torch.Tensor, options: SolverOptions, stride: int) -> EstimatedPose:
    fx, fy = K_33[0, 0].item(), K_33[1, 1].item()
    if abs(fx / fy - 1) > _FOCAL_TOLERANCE:
        raise ValueError(f"--solver published knows one focal length, but fx = {fx:.1f} and fy = {fy:.1f} px")
    pose_44 = torch.zeros(4, 4, dtype=torch.float64)
    success = dsacstar.forward_rgb(
        coords_13hw, pose_44, options.hypotheses, options.threshold, (fx * fy) ** 0.5, K_33[0, 2].item(),
        K_33[1, 2].item(), options.inlieralpha, options.maxpixelerror, stride,
    )  # fmt: skip
    return EstimatedPose(pose_44.numpy(), success, None)
