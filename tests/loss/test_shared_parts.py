"""What the losses share: the likelihood and its clamps, masked means, and the refusal of shapes that would broadcast."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
import torch

from dataloader.batch import Batch
from geometry.cameras import intrinsics_matrix
from loss import LossOptions, LossResult, loss_for
from loss.result import masked_mean, regression_loss

OPTIONS = LossOptions()


def batch_of(labels, valid):
    """A camera at the origin that looks at the cell's centre (4, 4) px along its axis; exact in binary."""
    return Batch(
        images_B3HW=torch.zeros(1, 3, 8, 8), labels_BChw=labels, valid_B1hw=valid,
        world_from_cam_B44=torch.eye(4, dtype=torch.float64)[None], K_B33=intrinsics_matrix(16, 16, 4, 4)[None],
        stems=("section/a",),
    )  # fmt: skip


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(
    ("error", "sigma", "log_sigma", "quotient"),
    [
        (3.0, 2.0, math.log(2.0), 9 / 8),
        (0.1, 1e-5, math.log(1e-5), 0.01 / 2e-7),  # the square of sigma meets its lower clamp
        (0.1, 1e-9, math.log(1e-7), 0.01 / 2e-7),  # sigma itself too
        (0.0, 0.01, math.log(0.01), 1e-7 / 2e-4),  # and so does the square of the error
    ],
)
def test_the_likelihood_and_its_clamps_in_closed_form(error, sigma, log_sigma, quotient, dimensions):
    errors = torch.full((1, 1, 1, 2), error, dtype=torch.float64)
    valid = torch.tensor([True, False]).view(1, 1, 1, 2)
    value = regression_loss(errors, torch.full_like(errors, sigma), valid, dimensions=dimensions)
    assert value.item() == pytest.approx(dimensions * log_sigma + quotient, rel=1e-9)
    assert regression_loss(errors, None, valid, dimensions=dimensions).item() == error


def test_a_mean_counts_what_the_mask_holds():
    values = torch.tensor([3.0, 5.0, float("nan")], requires_grad=True)
    assert masked_mean(values, torch.tensor([True, False, False])) == 3
    mean = masked_mean(values, torch.tensor([True, True, False]))
    assert mean == 4 and not mean.requires_grad
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)) == 0


def test_a_perfect_reprojection_costs_the_lower_clamp():
    labels = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64).view(1, 3, 1, 1)
    batch = batch_of(labels, torch.ones(1, 1, 1, 1, dtype=torch.bool))
    assert loss_for("coord")(labels.clone(), None, batch, OPTIONS).total.item() == pytest.approx(1e-7, rel=1e-6)


@pytest.mark.parametrize("task", ["coord", "depth", "normal", "semantics"])
def test_every_loss_refuses_predictions_that_would_broadcast(task):
    """Shapes that torch would stretch in silence, which makes every number wrong."""
    channels = {"coord": 3, "depth": 1, "normal": 2, "semantics": 6}[task]
    labels = (
        torch.ones(1, 4, 6, dtype=torch.int64) if task == "semantics" else torch.ones(1, 1 if task == "depth" else 3, 4, 6)
    )
    batch = batch_of(labels, torch.ones(1, 1, 4, 6, dtype=torch.bool))
    for shape in ((1, channels, 1, 6), (2, channels, 4, 6)):
        with pytest.raises(ValueError, match="prediction of shape"):
            loss_for(task)(torch.ones(shape), None, batch, OPTIONS)
    if task != "semantics":
        with pytest.raises(ValueError, match="uncertainty of shape"):
            loss_for(task)(torch.ones(1, channels, 4, 6), torch.ones(1, 1, 4, 1), batch, OPTIONS)


def test_options_and_results_stay_what_they_are():
    with pytest.raises(FrozenInstanceError):
        LossOptions().softclamp = 1.0
    with pytest.raises(FrozenInstanceError):
        LossResult(torch.zeros(()), torch.zeros(()), {}).total = torch.ones(())
