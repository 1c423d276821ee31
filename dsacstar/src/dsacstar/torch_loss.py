"""End-to-end training: the expected pose loss of the estimator that `solve` uses, as a torch autograd function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from dsacstar import _core
from dsacstar.arrays import float_array, real_number, whole_number
from dsacstar.published import pose_array
from dsacstar.solving import (
    CM_PER_M,
    LARGEST_SEED,
    MOST_HYPOTHESES,
    RESIDUALS,
    intrinsics_array,
    mask_array,
    near_origin,
)

if TYPE_CHECKING:
    from dsacstar.solving import ArrayLike


@dataclass(frozen=True)
class LossOptions:
    """The expected loss; see `pose_loss`.

    Attributes:
        w_rot, w_trans: weights of the rotation error in degrees and the translation error in metres.
        soft_clamp: a pose loss L above it counts as sqrt(soft_clamp * L).
        inlier_alpha: how sharply the expectation prefers poses that more cells agree with: a pose's weight is
            exp(inlier_alpha * share of agreeing cells).
        threads: worker threads over images, hypotheses and poses; 0 means one per CPU. Never changes the answer.
        Others: as RansacOptions.
    """

    hypotheses: int = 64
    threshold_px: float = 10.0
    inlier_alpha: float = 100.0
    subsampling: float = 8.0
    w_rot: float = 1.0
    w_trans: float = 1.0
    soft_clamp: float = 100.0
    max_tries: int = 16
    threads: int = 0
    residual: Literal["metric", "pixel"] = "metric"

    def __post_init__(self) -> None:
        whole_number(self.hypotheses, "hypotheses", 1, MOST_HYPOTHESES)
        for name in ("threshold_px", "subsampling"):
            real_number(getattr(self, name), name, above=0.0)
        for name in ("inlier_alpha", "w_rot", "w_trans", "soft_clamp"):
            real_number(getattr(self, name), name, least=0.0)
        whole_number(self.max_tries, "max_tries", 1, 100_000)
        whole_number(self.threads, "threads", 0, 1024)
        if self.residual not in RESIDUALS:
            raise ValueError(f"residual is {self.residual!r}; choose from {list(RESIDUALS)}")


def pose_loss(
    scene_coords_B3hw: torch.Tensor,
    gt_poses_B44: ArrayLike,
    intrinsics: ArrayLike | None = None,
    *,
    options: LossOptions | None = None,
    seed: int = 0,
    mask: ArrayLike | None = None,
    camera_coords_B3hw: ArrayLike | None = None,
) -> torch.Tensor:
    """Expected pose loss per image, [B], through hypotheses, choice and refinement of `solve`.

    Args:
        scene_coords_B3hw: predicted coordinates, metres, on any device (solved on the CPU); the loss is differentiable by
            them.
        gt_poses_B44: world from camera.
        intrinsics: as `solve`; not needed with camera_coords_B3hw.
        options: see LossOptions.
        seed: every image draws its hypotheses from it; vary it from step to step.
        mask: true where a cell may be used, [B, h, w] or [B, 1, h, w].
        camera_coords_B3hw: measured camera coordinates (RGB-D), as `solve`; threshold_px is then in centimetres.
    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range, named.
    An image without any pose has loss 0 and no gradient. Differentiable once; the gradient is computed in the forward pass.
    Source: expectation over hypotheses after DSAC, Brachmann et al., CVPR 2017; the implicit function theorem at the
    refinement's fixed point.
    """
    losses_B: torch.Tensor = PoseLoss.apply(
        scene_coords_B3hw, gt_poses_B44, intrinsics, options, seed, mask, camera_coords_B3hw
    )
    return losses_B


class PoseLoss(torch.autograd.Function):
    """`PoseLoss.apply(scene_coords_B3hw, gt_poses_B44, intrinsics, options, seed)`: see `pose_loss`, its typed face."""

    @staticmethod
    def forward(
        ctx: Any,
        scene_coords_B3hw: torch.Tensor,
        gt_poses_B44: Any,
        intrinsics: Any,
        options: LossOptions | None = None,
        seed: int = 0,
        mask: Any = None,
        camera_coords_B3hw: Any = None,
    ) -> torch.Tensor:
        options = LossOptions() if options is None else options
        if not isinstance(options, LossOptions):
            raise TypeError(f"options must be LossOptions, not {type(options).__name__}")
        if not isinstance(scene_coords_B3hw, torch.Tensor):
            raise TypeError(f"scene_coords_B3hw must be a tensor, not {type(scene_coords_B3hw).__name__}")
        coords_B3hw, origins_B3 = near_origin(on_cpu(scene_coords_B3hw))
        images, _, height, width = coords_B3hw.shape
        poses_B44 = float_array(on_cpu(gt_poses_B44), "gt_poses_B44", (images, 4, 4), np.float64)
        poses_B44 = np.stack([pose_array(poses_B44[b], f"gt_poses_B44[{b}]") for b in range(images)] or [poses_B44])
        poses_B44 = poses_B44.reshape(images, 4, 4).copy()
        poses_B44[:, :3, 3] -= origins_B3
        rgbd = camera_coords_B3hw is not None
        if not rgbd and intrinsics is None:
            raise TypeError("intrinsics are needed unless camera_coords_B3hw are given")
        losses_B, _, gradient_B3hw = _core.pose_losses(
            scene_coords=coords_B3hw,
            camera_coords=float_array(on_cpu(camera_coords_B3hw), "camera_coords_B3hw", coords_B3hw.shape) if rgbd else None,
            intrinsics=None if rgbd else intrinsics_array(on_cpu(intrinsics), images),
            mask=None if mask is None else mask_array(on_cpu(mask), (images, height, width)),
            world_from_cam=poses_B44,
            subsampling=float(options.subsampling),
            hypotheses=int(options.hypotheses),
            threshold=float(options.threshold_px) / (CM_PER_M if rgbd else 1.0),
            inlier_alpha=float(options.inlier_alpha),
            max_tries=int(options.max_tries),
            pixel_residual=options.residual == "pixel",
            w_rot=float(options.w_rot),
            w_trans=float(options.w_trans),
            soft_clamp=float(options.soft_clamp),
            threads=int(options.threads),
            seed=whole_number(seed, "seed", 0, LARGEST_SEED),
        )
        ctx.save_for_backward(torch.from_numpy(gradient_B3hw).to(scene_coords_B3hw))
        return torch.from_numpy(losses_B).to(scene_coords_B3hw)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_losses_B: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient_B3hw,) = ctx.saved_tensors
        return grad_losses_B[:, None, None, None] * gradient_B3hw, None, None, None, None, None, None


def on_cpu(value: Any) -> Any:
    """Tensors moved to the CPU; everything else as it is."""
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value
