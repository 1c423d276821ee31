"""Learning rates in closed form, and that the loop sets them."""

import csv
import math

import pytest

from tests.training.small_runs import SMALL, options
from training.loop import train
from training.schedule import learning_rate


@pytest.mark.parametrize("epoch, factor", [(0, 1), (49.99, 1), (50, 0.5), (99.99, 0.5), (100, 0.25), (149.9, 0.25)])
def test_step(epoch, factor):
    assert learning_rate("step", 2e-4, epoch, 150) == pytest.approx(2e-4 * factor)


def test_constant():
    assert [learning_rate("constant", 3e-4, epoch, 9) for epoch in (0, 4.5, 9)] == [3e-4] * 3


@pytest.mark.parametrize(
    "progress, factor",
    [
        (0.0, 0.02),
        (0.015, 0.02 + 0.98 / 2),
        (0.03, 1.0),
        (0.515, 0.02 + 0.98 * 0.5),
        (1.0, 0.02),
        (0.2, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * 0.17 / 0.97))),
    ],
)
def test_onecycle(progress, factor):
    assert learning_rate("onecycle", 1e-3, 40 * progress, 40) == pytest.approx(1e-3 * factor)


def test_the_loop_trains_with_the_scheduled_rate(tmp_path, plane_section):
    """That it reaches all groups of the optimizer, `test_loop_parts` knows."""
    plane_section(4)
    run = train(options(tmp_path, *SMALL, "--epochs", 3, "--lr_schedule", "onecycle", "-lr", 1e-3, "--optimizer", "muon"))
    rows = list(csv.DictReader((run.output / "training_log.csv").open()))
    expected = [learning_rate("onecycle", 1e-3, (int(row["images_seen"]) - 2) / 4, 3) for row in rows]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(expected, rel=1e-5)
