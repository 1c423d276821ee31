"""The training losses, one file per task: pure functions of prediction, uncertainty and batch."""

from __future__ import annotations

from collections.abc import Callable

from loss.coord import coord_loss
from loss.depth import depth_loss
from loss.normal import normal_loss
from loss.pose import PoseLossOptions, pose_loss
from loss.result import LossOptions, LossResult
from loss.semantics import semantics_loss

__all__ = ["LossOptions", "LossResult", "PoseLossOptions", "loss_for", "pose_loss"]

_LOSSES: dict[str, Callable[..., LossResult]] = {
    "coord": coord_loss,
    "depth": depth_loss,
    "normal": normal_loss,
    "semantics": semantics_loss,
}


def loss_for(task: str) -> Callable[..., LossResult]:
    """The loss of a task: a function (prediction_BChw, sigma_B1hw or None, batch, options) -> LossResult.

    Raises:
        ValueError: unknown task.
    """
    if task not in _LOSSES:
        raise ValueError(f"unknown task {task!r}; choose from {sorted(_LOSSES)}")
    return _LOSSES[task]
