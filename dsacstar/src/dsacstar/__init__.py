"""Camera pose from scene coordinates: a fast, robust and differentiable DSAC* solver.

The published functions (same names, same argument order): `forward_rgb`, `forward_rgbd`,
`backward_rgb`, `backward_rgbd`.
The modern face: `solve` with `RansacOptions` and `Result`, and
`pose_loss` with `LossOptions` (needs torch, imported on first use).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsacstar._core import instruction_set
from dsacstar.published import backward_rgb, backward_rgbd, forward_rgb, forward_rgbd
from dsacstar.solving import Alternative, Priors, RansacOptions, Result, solve

if TYPE_CHECKING:
    from dsacstar.torch_loss import LossOptions, PoseLoss, pose_loss

__version__ = "2.1.0"

__all__ = [
    "Alternative",
    "LossOptions",
    "PoseLoss",
    "Priors",
    "RansacOptions",
    "Result",
    "__version__",
    "backward_rgb",
    "backward_rgbd",
    "forward_rgb",
    "forward_rgbd",
    "instruction_set",
    "pose_loss",
    "solve",
]


def __getattr__(name: str) -> Any:
    if name in {"PoseLoss", "LossOptions", "pose_loss"}:
        from dsacstar import torch_loss

        return getattr(torch_loss, name)
    raise AttributeError(f"module 'dsacstar' has no attribute {name!r}")
