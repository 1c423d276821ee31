"""Camera poses from predicted scene coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import dsacstar
from geometry.grid import STRIDE

SOLVERS = ("dsacstar", "published")
# The published solver knows one focal length: images whose two differ by more than this share are refused.
_FOCAL_TOLERANCE = 0.01


@dataclass(frozen=True)
class SolverOptions:
    """How poses are found.

    Attributes:
        solver: 'dsacstar' (fx fy cx cy, batches, weighted by the predicted uncertainty) or 'published' (`forward_rgb`).
        hypotheses: number of pose hypotheses.
        threshold_px: inlier threshold.
        inlier_alpha: scale of the soft inlier count.
        max_error_px: reprojection errors are clamped here.
        seed: of the hypotheses.
    """

    solver: str = "dsacstar"
    hypotheses: int = 64
    threshold_px: float = 10.0
    inlier_alpha: float = 100.0
    max_error_px: float = 100.0
    seed: int = 2021

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(f"unknown --solver {self.solver!r}; choose from {list(SOLVERS)}")
        for name in ("hypotheses", "threshold_px", "inlier_alpha", "max_error_px"):
            if not getattr(self, name) > 0:
                raise ValueError(f"solver option {name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True)
class EstimatedPose:
    """A pose, or the lack of one.

    Attributes:
        world_from_cam_44: float64; the identity without success.
        success: whether a pose was found.
        inliers: cells that agree with it; None where the solver does not say.
    """

    world_from_cam_44: np.ndarray
    success: bool
    inliers: int | None


def solve_poses(
    coords_B3hw: torch.Tensor, sigma_B1hw: torch.Tensor | None, K_B33: torch.Tensor, options: SolverOptions
) -> list[EstimatedPose]:
    """One pose per image; deterministic in inputs and options.

    Args:
        coords_B3hw: predicted scene coordinates, metres.
        sigma_B1hw: their standard deviations, metres; used as weights by the 'dsacstar' solver.
        K_B33: intrinsics of the images, pixels.
    """
    coords_B3hw, K_B33 = coords_B3hw.float().cpu().contiguous(), K_B33.double().cpu()
    if options.solver == "published":
        return [_solve_published(c_13hw, K_33, options) for c_13hw, K_33 in zip(coords_B3hw.split(1), K_B33, strict=True)]
    results = dsacstar.solve(
        coords_B3hw,
        K_B33,
        options=dsacstar.RansacOptions(
            hypotheses=options.hypotheses,
            threshold_px=options.threshold_px,
            inlier_alpha=options.inlier_alpha,
            max_reprojection_px=options.max_error_px,
            subsampling=STRIDE,
        ),
        weights=None if sigma_B1hw is None else sigma_B1hw[:, 0].float().cpu().contiguous(),
        seed=options.seed,
    )
    return [
        EstimatedPose(np.asarray(result.pose, dtype=np.float64), bool(result.success), int(result.inliers))
        for result in results
    ]


def _solve_published(coords_13hw: torch.Tensor, K_33: torch.Tensor, options: SolverOptions) -> EstimatedPose:
    fx, fy = K_33[0, 0].item(), K_33[1, 1].item()
    if abs(fx / fy - 1) > _FOCAL_TOLERANCE:
        raise ValueError(f"--solver published knows one focal length, but fx = {fx:.1f} and fy = {fy:.1f} px")
    pose_44 = torch.zeros(4, 4, dtype=torch.float64)
    success = dsacstar.forward_rgb(
        coords_13hw, pose_44, options.hypotheses, options.threshold_px, (fx * fy) ** 0.5, K_33[0, 2].item(),
        K_33[1, 2].item(), options.inlier_alpha, options.max_error_px, STRIDE,
    )  # fmt: skip
    return EstimatedPose(pose_44.numpy(), success, None)
