"""Losses and valid rates against those of the published system, and the gradients of the very same values."""

from __future__ import annotations

import math

import pytest
import torch

from dataloader.batch import Batch
from geometry.cameras import intrinsics_matrix
from loss import LossOptions, loss_for
from tests import golden

LABELS = {"coord": "gt", "depth": "depth", "normal": "normal", "semantics": "sem_label"}
PREDICTIONS = {"coord": "pred", "depth": "pred_depth", "normal": "normal_logits", "semantics": "sem_logits"}
CASES = ["coord_None", "coord_MLE", "depth_None", "depth_MLE", "normal_None", "normal_MLE", "semantics_None"]


def case(name, dtype):
    """(prediction, uncertainty or None, batch, options) of a golden loss."""
    task, uncertainty = name.split("_")
    inputs = golden.loss_inputs()
    labels = inputs[LABELS[task]]
    if task == "semantics":
        labels, valid = labels[:, 0].long(), torch.ones(2, 1, 120, 160, dtype=torch.bool)
    else:
        labels, valid = labels.to(dtype), (labels != -1).all(1, keepdim=True)
        assert 0.9 < valid.float().mean() < 1  # some cells are without a label
    K = intrinsics_matrix(float(inputs["focal"]), float(inputs["focal"]), 80.0, 60.0).to(dtype)
    batch = Batch(
        images_B3HW=torch.zeros(2, 3, 120, 160),
        K_B33=K.expand(2, 3, 3),
        stems=("s/a", "s/b"),
        labels_BChw=labels,
        valid_B1hw=valid,
        world_from_cam_B44=inputs["poses"].to(dtype),
        stride=1 if task == "semantics" else 8,
    )
    options = LossOptions(50.0, 0.1, 100.0, 1000.0 if task == "coord" else 10.0)
    sigma = inputs["unc"].to(dtype) if uncertainty == "MLE" else None
    return inputs[PREDICTIONS[task]].to(dtype), sigma, batch, options


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_losses_and_valid_rates_are_the_published_ones(name, dtype):
    task = name.split("_")[0]
    prediction, sigma, batch, options = case(name, dtype)
    result = loss_for(task)(prediction, sigma, batch, options)
    expected, valid_rate = golden.losses()[name]
    total = result.total.item()
    if task == "coord":
        # A root's guard against zero, in all cells that are not both in range and beyond the soft clamp: here all.
        total += math.sqrt(1e-7 * options.softclamp + 1e-7)
    assert total == pytest.approx(expected, rel=5e-7)
    assert result.valid_rate.item() == pytest.approx(valid_rate, abs=1e-6)


def test_every_golden_loss_is_looked_at():
    assert set(CASES) == set(golden.losses())


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_the_slope_of_the_golden_loss(name):
    """Along random directions, by central differences: kinks are hit with probability nearly zero."""
    task = name.split("_")[0]
    prediction, sigma, batch, options = case(name, torch.float64)
    inputs = [prediction] if sigma is None else [prediction, sigma]
    leaves = [value.clone().requires_grad_() for value in inputs]
    loss_for(task)(leaves[0], leaves[1] if sigma is not None else None, batch, options).total.backward()
    generator = torch.Generator().manual_seed(5)
    for which, leaf in enumerate(leaves):
        assert (leaf.grad != 0).double().mean() > 0.9
        for _ in range(3):
            direction = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
            step = 1e-7 * leaf.abs().median()
            totals = []
            for sign in (1, -1):
                moved = list(inputs)
                moved[which] = moved[which] + sign * step * direction
                totals.append(loss_for(task)(moved[0], moved[1] if sigma is not None else None, batch, options).total)
            slope = ((totals[0] - totals[1]) / (2 * step)).item()
            scale = (leaf.grad.norm()).item()  # what the slope along a random direction is like
            assert (leaf.grad * direction).sum().item() == pytest.approx(slope, abs=1e-4 * scale)
