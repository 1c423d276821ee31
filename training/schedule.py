"""Learning rates and image sizes as functions of the progress alone, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

_WARM_UP = 0.03
_FINAL_SHARE = 0.02
_SMALL_UNTIL = 0.5


def _step(epoch: float, epochs: int) -> float:
    """Halved at epochs 50 and 100."""
    return 0.5 ** ((epoch >= 50) + (epoch >= 100))


def _constant(epoch: float, epochs: int) -> float:
    return 1.0


def _onecycle(epoch: float, epochs: int) -> float:
    """Linear warm-up over the first 3 % of the run, then cosine decay to 2 %."""
    progress = epoch / epochs
    if progress < _WARM_UP:
        return _FINAL_SHARE + (1 - _FINAL_SHARE) * progress / _WARM_UP
    decay = (progress - _WARM_UP) / (1 - _WARM_UP)
    return _FINAL_SHARE + (1 - _FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(decay, 1.0)))


LR_SCHEDULES = {"step": _step, "constant": _constant, "onecycle": _onecycle}


def learning_rate(name: str, base: float, epoch: float, epochs: int) -> float:
    """Learning rate at a fractional epoch.

    Args:
        name: a key of LR_SCHEDULES.
        base: the run's learning rate.
        epoch: epochs done so far, with the fraction of the current one.
        epochs: epochs of the whole run.
    """
    return base * LR_SCHEDULES[name](epoch, epochs)


def image_scale(start: float | None, progress: float) -> float:
    """By what training images are zoomed: small in the first half of a run, full-sized after it.

    Args:
        start: zoom of the first half; None: 1 throughout.
        progress: share of the run's images that are done.
    """
    return start if start is not None and progress < _SMALL_UNTIL else 1.0
