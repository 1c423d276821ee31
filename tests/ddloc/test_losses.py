"""Closed forms."""

import math

import pytest
import torch

from dataloader.batch import Batch
from ddloc.attention import hard_mask, noisy_mask, temperature
from ddloc.losses import (
    cross_entropy,
    feature_distance,
    gram,
    initialisation_loss,
    kept_share_divergence,
    l1,
    least_squares,
)
from ddloc.options import StageOptions
from ddloc.stage_translation import FakeBuffer
from loss import LossOptions

FOCAL = 50.0


def one_cell(label=(0.0, 0.0, 10.0), valid=True):
    """A camera at the origin looking along z at an image of one cell, whose centre is (4, 4) px."""
    K_133 = torch.tensor([[[FOCAL, 0, 4], [0, FOCAL, 4], [0, 0, 1]]])
    return Batch(
        torch.zeros(1, 3, 8, 8),
        K_133,
        ("photo",),
        torch.tensor(label).reshape(1, 3, 1, 1),
        torch.full((1, 1, 1, 1), valid),
        torch.eye(4)[None],
    )


def loss_of(point, batch):
    return initialisation_loss(torch.tensor(point).reshape(1, 3, 1, 1), batch, LossOptions())


@pytest.mark.parametrize(
    "point, label, valid, expected, in_range",
    [
        ((0.4, 0.3, 10.0), (0.0, 0.0, 10.0), True, 2.5, 1),  # 0.5 m at 10 m: 2.5 px, no matter how far the label
        ((0.0, 0.0, 40.0), (0.0, 0.0, 10.0), True, 1e-7, 1),  # on the ray and within 50 m: nothing pulls
        ((30.0, 0.0, 10.0), (0.0, 0.0, 10.0), True, math.sqrt(100 * 150), 1),  # 150 px: softened
        ((0.0, 0.0, 70.0), (0.0, 0.0, 10.0), True, 60.0, 0),  # too far from the label: the distance
        ((0.0, 3.0, -10.0), (0.0, 0.0, 10.0), True, math.hypot(3, 20), 0),  # behind the camera
        ((40.0, 0.0, 1.0), (0.0, 0.0, 1.0), True, 40.0, 0),  # 2000 px: beyond the hard clamp
        ((0.4, 0.3, 10.0), (-1.0, -1.0, -1.0), False, 2.5, 1),  # no label: the reprojection
        ((0.0, 3.0, -10.0), (-1.0, -1.0, -1.0), False, 0.0, 0),  # neither
    ],
)
def test_a_cell_costs_reprojection_or_distance(point, label, valid, expected, in_range):
    result = loss_of(point, one_cell(label, valid))
    assert result.total.item() == pytest.approx(expected, rel=1e-5, abs=2e-7)
    assert result.valid_rate.item() == in_range


def test_the_mean_is_over_all_cells():
    batch = one_cell()
    wide = Batch(
        torch.zeros(1, 3, 8, 16), batch.K_B33, batch.stems, batch.labels_BChw.expand(1, 3, 1, 2),
        torch.tensor([True, False]).reshape(1, 1, 1, 2), batch.world_from_cam_B44,
    )  # fmt: skip
    coords = torch.tensor([[0.0, 0.0], [0.0, 0.0], [70.0, -1.0]]).reshape(1, 3, 1, 2)
    assert initialisation_loss(coords, wide, LossOptions()).total.item() == pytest.approx(30.0)


def test_adversarial_losses():
    scores = torch.tensor([0.0, 2.0])
    assert least_squares(scores, 1.0).item() == 1.0 and least_squares(scores, 0.0).item() == 2.0
    expected = (math.log(2) + math.log(1 + math.exp(-2))) / 2
    assert cross_entropy(scores, 1.0).item() == pytest.approx(expected)
    assert cross_entropy(scores, 0.0).item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)


def test_weighted_difference_is_over_all_pixels():
    a, b = torch.zeros(1, 3, 1, 2), torch.tensor([1.0, 3.0]).expand(1, 3, 1, 2)
    assert l1(a, b).item() == 2.0
    assert l1(a, b, torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)).item() == 0.5
    assert feature_distance([a, a], [b, 2 * b]).item() == 6.0


def test_gram_is_over_the_entries_of_a_map():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 1, 2)
    assert torch.allclose(gram(x)[0], torch.tensor([[5.0, 11.0], [11.0, 25.0]]) / 4)


def test_divergence_of_the_kept_share():
    assert kept_share_divergence(torch.full((1, 1, 2, 2), 0.9), 0.9).item() == pytest.approx(0.0, abs=1e-6)
    half = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert kept_share_divergence(half, 0.9).item() == pytest.approx(expected, rel=1e-5)
    assert math.isfinite(kept_share_divergence(torch.ones(1, 1, 2, 2), 0.9).item())


def test_masks():
    scores = torch.tensor([2.0, -0.1, 0.0])
    assert hard_mask(scores).tolist() == [1.0, 0.0, 0.0]
    # exp(-1) gives a Gumbel noise of zero, exp(-e) one of minus one.
    without = noisy_mask(scores[:1], torch.full((1,), math.exp(-1)), 0.5).item()
    assert without == pytest.approx(1 / (1 + math.exp(-(2.00001 / 1.001) / 0.5)), rel=1e-5)
    lower = noisy_mask(scores[:1], torch.full((1,), math.exp(-math.e)), 0.5).item()
    assert lower == pytest.approx(1 / (1 + math.exp(-(2.00001 / 1.001 - 1) / 0.5)), rel=1e-4)
    assert torch.isfinite(noisy_mask(scores, torch.tensor([0.0, 1.0, 0.5]), 0.05)).all()


def test_temperature_falls_in_ten_steps_per_epoch():
    assert temperature(0.0, 2) == 0.9 and temperature(2.0, 2) == pytest.approx(0.05)
    assert temperature(0.1, 2) == temperature(0.19, 2) == pytest.approx(0.9 - 0.85 / 20)
    assert temperature(1.0, 2) == pytest.approx((0.9 + 0.05) / 2)


@pytest.mark.parametrize(
    "stage, epochs, done, expected",
    [("C", 10, 0, 1e-4), ("C", 10, 4, 1e-4), ("C", 10, 7, 0.5e-4), ("T", 200, 160, 2.5e-5), ("I", 200, 200, 0.0)],
)
def test_rates_are_constant_then_fall_to_zero(stage, epochs, done, expected):
    options = StageOptions(stage=stage, scene="s", total_epoch_num=epochs).completed()
    assert options.rate(done) == pytest.approx(expected, abs=1e-12)


def test_published_numbers_stand_where_nothing_was_said():
    of = {s: StageOptions(stage=s, scene="s").completed() for s in ("C", "T", "A", "I", "joint", "finetune")}
    assert {s: (o.batch_size, o.total_epoch_num, o.learningrate) for s, o in of.items()} == {
        "C": (60, 1500, 1e-4), "T": (2, 200, 5e-5), "A": (2, 200, 5e-5), "I": (2, 200, 1e-4), "joint": (4, 100, 1e-4),
        "finetune": (16, 500, 1e-4),
    }  # fmt: skip
    assert (of["T"].paired_share, of["C"].paired_share, of["joint"].paired_share) == (0.25, 0.0, 1.0)
    assert of["joint"].data_ispaired and not of["C"].data_ispaired
    assert (of["T"].rho, of["C"].loss.softclamp, of["C"].loss.hardclamp, of["finetune"].augmentation.jitter) == (
        0.9, 100.0, 1000.0, 1.0,
    )  # fmt: skip


def test_fakes_of_earlier_steps_come_back():
    buffer, generator = FakeBuffer(2), torch.Generator().manual_seed(0)
    shown = [buffer.exchanged(torch.full((1, 3, 2, 2), float(i)), generator)[0, 0, 0, 0].item() for i in range(40)]
    assert shown[:2] == [0.0, 1.0]  # until it is full, as they come
    old = sum(value < i for i, value in enumerate(shown))
    assert 8 < old < 30 and len(buffer.images) == 2 and buffer.images[0].dtype == torch.float16
