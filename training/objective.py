"""What a run minimises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from dataloader.batch import Batch
from dataloader.scenes import SceneStatistics
from loss import LossOptions, LossResult, loss_for, pose_loss
from training.options import RefinementOptions, TrainingOptions

# (prediction_BChw, sigma_B1hw or None, batch, images of the run before the batch's first one) -> loss
Objective = Callable[[torch.Tensor, "torch.Tensor | None", Batch, int], LossResult]
# Images of a run are fewer than this: every image of every run draws hypotheses of its own.
_IMAGES_OF_A_RUN = 1 << 32
_MOST_SEEDS = 1 << 30


def objective(options: TrainingOptions, statistics: SceneStatistics) -> Objective:
    """The loss of a run's options as a function of predictions and position."""
    thresholds = loss_options(options, statistics)
    if isinstance(options, RefinementOptions):
        start = options.seed % _MOST_SEEDS * _IMAGES_OF_A_RUN
        return lambda prediction, sigma, batch, images_before: pose_loss(
            prediction, sigma, batch, thresholds, options.pose, start + images_before
        )
    loss = loss_for(options.task)
    return lambda prediction, sigma, batch, images_before: loss(prediction, sigma, batch, thresholds)


def loss_options(options: TrainingOptions, statistics: SceneStatistics) -> LossOptions:
    """The thresholds in metres."""
    if not options.depth_relative:
        return options.loss
    unit = statistics.mean_depth
    return replace(options.loss, inittolerance=options.loss.inittolerance * unit, mindepth=options.loss.mindepth * unit)
