"""End-to-end training: the expected pose loss as a torch autograd function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dsacstar import _core
from dsacstar.arrays import float_array, real_number, whole_number
from dsacstar.published import BACKWARD_TRIES, pose_array
from dsacstar.solving import LARGEST_SEED, MOST_HYPOTHESES, intrinsics_array


@dataclass(frozen=True)
class LossOptions:
    """The expected loss; see `backward_rgb`.

    Attributes:
        w_rot, w_trans: weights of the rotation error in degrees and the translation error in metres.
        soft_clamp: a pose loss L above it counts as sqrt(soft_clamp * L).
        Others: as RansacOptions.
    """

    hypotheses: int = 64
    threshold_px: float = 10.0
    inlier_alpha: float = 100.0
    max_reprojection_px: float = 100.0
    subsampling: float = 8.0
    w_rot: float = 1.0
    w_trans: float = 1.0
    soft_clamp: float = 100.0

    def __post_init__(self) -> None:
        whole_number(self.hypotheses, "hypotheses", 1, MOST_HYPOTHESES)
        for name in ("threshold_px", "max_reprojection_px", "subsampling"):
            real_number(getattr(self, name), name, above=0.0)
        for name in ("inlier_alpha", "w_rot", "w_trans", "soft_clamp"):
            real_number(getattr(self, name), name, least=0.0)


class PoseLoss(torch.autograd.Function):
    """`PoseLoss.apply(scene_coords_B3hw, gt_poses_B44, intrinsics, options, seed)`: expected pose loss per image, [B].

    Args:
        scene_coords_B3hw: predicted coordinates, metres, on any device (solved on the CPU).
        gt_poses_B44: world from camera.
        intrinsics: as `solve`.
        options: LossOptions or None.
        seed: image i draws its hypotheses from seed + i; vary it from step to step.
    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range, named.
    Differentiable once, by the coordinates only; the gradient is computed in the forward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        scene_coords_B3hw: torch.Tensor,
        gt_poses_B44: Any,
        intrinsics: Any,
        options: LossOptions | None = None,
        seed: int = 0,
    ) -> torch.Tensor:
        options = LossOptions() if options is None else options
        if not isinstance(options, LossOptions):
            raise TypeError(f"options must be LossOptions, not {type(options).__name__}")
        if not isinstance(scene_coords_B3hw, torch.Tensor):
            raise TypeError(f"scene_coords_B3hw must be a tensor, not {type(scene_coords_B3hw).__name__}")
        on_cpu = [
            v.detach().cpu() if isinstance(v, torch.Tensor) else v for v in (scene_coords_B3hw, gt_poses_B44, intrinsics)
        ]
        coords_B3hw = float_array(on_cpu[0], "scene_coords_B3hw", (None, 3, None, None))
        images = coords_B3hw.shape[0]
        poses_B44 = float_array(on_cpu[1], "gt_poses_B44", (images, 4, 4), np.float64)
        intrinsics_B4 = intrinsics_array(on_cpu[2], images)
        seed = whole_number(seed, "seed", 0, LARGEST_SEED - images)
        losses_B = np.zeros(images)
        gradient_B3hw = np.zeros(coords_B3hw.shape)
        for b in range(images):
            losses_B[b], _, gradient_B3hw[b] = _core.expected_loss(
                scene_coords=coords_B3hw[b : b + 1],
                camera_coords=None,
                intrinsics=intrinsics_B4[b],
                world_from_cam=pose_array(poses_B44[b], f"gt_poses_B44[{b}]"),
                subsampling=float(options.subsampling),
                hypotheses=int(options.hypotheses),
                threshold=float(options.threshold_px),
                inlier_alpha=float(options.inlier_alpha),
                max_error=float(options.max_reprojection_px),
                max_tries=BACKWARD_TRIES,
                w_rot=float(options.w_rot),
                w_trans=float(options.w_trans),
                soft_clamp=float(options.soft_clamp),
                seed=seed + b,
            )
        ctx.save_for_backward(torch.from_numpy(gradient_B3hw).to(scene_coords_B3hw))
        return torch.from_numpy(losses_B).to(scene_coords_B3hw)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_losses_B: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (gradient_B3hw,) = ctx.saved_tensors
        return grad_losses_B[:, None, None, None] * gradient_B3hw, None, None, None, None
