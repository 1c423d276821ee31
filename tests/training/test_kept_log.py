"""What a training shows: logs, tables, bars and pictures of known figures, looked at once and kept."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import training.log as log_module
from dataloader.batch import Batch
from dataloader.preprocessing import Preprocessing
from loss import LossResult
from tests.figures import described
from tests.kept import assert_kept
from training import curves as curves_module
from training import pictures
from training.curves import Curve, curves_table, draw_curves, find_logs, read_curve, read_curves, smoothed
from training.going_back import NotFinite, after_failure
from training.log import StepFigures, TrainingLog, iteration_line, regression_line
from training.pictures import picture_grid
from training.state import Position


def result(loss, valid=0.5, **regression):
    values = {name: torch.tensor(value) for name, value in regression.items()}
    return LossResult(torch.tensor(loss, requires_grad=True), torch.tensor(valid), values)


def step(log, loss, images_before, epoch=0, stems=("s/a", "s/b"), seconds=0.25, **of):
    values = {"coord": 12.345, "reprojection": 6.789, **of}
    about = {"images_before": images_before, "stems": stems, "epoch": epoch, "learning_rate": 2e-4, "seconds": seconds}
    log.step_done(result(loss, **values), **about)


def test_published_lines():
    figures = {"coord": 1.234, "reprojection": 56.789, "depth": 2.345, "normal": 0.126, "normal_angle_deg": 7.125}
    assert {task: regression_line(task, figures) for task in ("coord", "depth", "normal", "semantics")} == {
        "coord": "Regression error: coord:  1.23, reprojection:  56.79", "depth": "Regression error: depth:  2.35",
        "normal": "Regression error: normal in radian:  0.13, normal in degree: 7.12", "semantics": "",
    }  # fmt: skip
    assert iteration_line(42, 7, -1.005, 12.345, 0.0123) == (
        "Iteration:      42, Epoch:   7, Total loss: -1.00, Valid: 12.3%, Avg Time: 0.012s"
    )


@pytest.fixture
def clock(monkeypatch):
    """One second a look."""
    now = iter(range(1, 10_000))
    monkeypatch.setattr(log_module.time, "perf_counter", lambda: float(next(now)))


def test_a_log_of_known_steps(tmp_path, clock, monkeypatch):
    bars = []
    original = log_module.tqdm
    monkeypatch.setattr(log_module, "tqdm", lambda **of: bars.append(of) or original(**of, disable=False))
    log = TrainingLog(tmp_path, "coord", 24, 0, {})
    log.message("two\nlines")
    step(log, 1.23456789, 0)
    shown = []
    original_postfix = log.bar.set_postfix
    log.bar.set_postfix = lambda **of: shown.append(of["refresh"]) or original_postfix(**of)
    step(log, -2.5, 2, epoch=1, stems=("s/c",), seconds=0.75, coord=math.nan)
    assert log.steps_waiting == 2 and log.bar.n == 3
    log.flush()
    assert log.steps_waiting == 0 and log.bar.postfix == "coord=nan, epoch=1, loss=-2.50, reprojection=6.79, valid=50%"
    step(log, 3.0, 3, epoch=2, valid=0.98765)
    sizes = log.sizes()
    log.flush()
    assert shown == [False] * 3  # the bar's own clock says when it is drawn
    log.close()
    assert bars == [
        {"total": 24, "initial": 0, "unit": "img", "desc": "train coord", "dynamic_ncols": True, "mininterval": 1.0}
    ]
    lines = [line.split(", ", 1)[1] for line in (tmp_path / "output.log").read_text().splitlines()]
    assert_kept("training-log", [lines, list(csv.reader((tmp_path / "training_log.csv").open()))], exact=True)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert board.Tags()["scalars"] == [
        "loss", "valid_percent", "coord", "reprojection", "learning_rate", "seconds_per_image",
    ]  # fmt: skip
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [
        (2, pytest.approx(1.2345679)),
        (3, -2.5),
        (5, 3.0),
    ]
    # A later process goes on from there; what came after is cut off.
    again = TrainingLog(tmp_path, "coord", 24, 3, sizes)
    step(again, 9.0, 3)
    again.flush()
    again.close()
    rows = list(csv.DictReader((tmp_path / "training_log.csv").open()))
    assert [row["loss"] for row in rows] == ["1.23457", "-2.5", "9"]
    fresh = TrainingLog(tmp_path, "coord", 24, 0, {})
    fresh.close()
    assert (tmp_path / "training_log.csv").read_text() == "" == (tmp_path / "output.log").read_text()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_figures_that_are_not_finite_stop_before_they_are_written(tmp_path, clock):
    log = TrainingLog(tmp_path, "coord", 24, 0, {})
    step(log, 1.0, 0)
    step(log, math.inf, 2, stems=("s/bad", "s/worse"))
    step(log, 1.0, 4)
    with pytest.raises(NotFinite, match="the loss is not finite after 2 images, at s/bad, s/worse") as caught:
        log.flush()
    assert (caught.value.images_seen, caught.value.stems) == (2, ("s/bad", "s/worse"))
    assert len((tmp_path / "training_log.csv").read_text().splitlines()) == 2
    log.close()


def test_figures_without_a_log_look_all_the_same():
    log = StepFigures()
    log.message("nothing")
    log.flush()
    step(log, math.nan, 6)
    assert log.steps_waiting == 1 and log.sizes() == {}
    with pytest.raises(NotFinite):
        log.flush()
    assert log.steps_waiting == 0
    step(log, 1.0, 6)
    assert not log._pending[0].result.total.requires_grad and log._busy_seconds == 0.25
    log.flush()
    assert log._busy_seconds == 0.0
    log.close()


def test_a_picture_an_epoch_and_half_a_minute(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(log_module.time, "monotonic", lambda: now[0])
    log = StepFigures()
    log._board = type("Board", (), {"add_image": lambda self, *of: shown.append(of[::2])})()
    shown = []
    assert log.wants_picture(0)
    log.picture(torch.zeros(3, 1, 1), epoch=0, images_seen=4)
    assert shown == [("images", 4)] and not log.wants_picture(1)
    now[0] = 129.9
    assert not log.wants_picture(1)
    now[0] = 130.0
    assert log.wants_picture(1) and not log.wants_picture(0)


def test_steps_that_are_passed_over_after_a_failure(tmp_path):
    position, failure = Position(8, (4,), 1, {"a": 1}), NotFinite(12, ("s/a",))
    after = after_failure(position, failure, (10, ("s/b",)), finite_weights=True, state=tmp_path / "state")
    assert after == replace(position, passed_over=(4, 12), failures=2)
    after = after_failure(after, failure, (10, ("s/b",)), finite_weights=False, state=tmp_path / "state")
    assert after.passed_over == (4, 10, 12) and after.failures == 3
    with pytest.raises(FloatingPointError, match=r"after 12 images, at s/a; .* went back 3 times already.*kept in .*state"):
        after_failure(after, failure, (10, ()), finite_weights=True, state=tmp_path / "state")


# ---- pictures of a step


@pytest.fixture
def words(monkeypatch):
    """What is written into pictures, and where, in place of writing it."""
    written = []
    monkeypatch.setattr(pictures.cv2, "putText", lambda grid, *of: written.append(of))
    return written


PREDICTIONS = {"coord": (3, 3), "depth": (1, 1), "normal": (3, 2), "semantics": (1, 6)}


@pytest.mark.parametrize("task", PREDICTIONS)
def test_pictures_of_steps(words, task):
    """Five images, four of which are shown; of two sizes, one of which is thinned; with and without an uncertainty."""
    label_channels, channels = PREDICTIONS[task]
    shown = []
    for (H, W), stride in (((16, 24), 8), ((256, 300), 4)):
        h, w = (H, W) if task == "semantics" else (H // stride, W // stride)
        generator = torch.Generator().manual_seed(3)
        labels = 20 * torch.rand(5, label_channels, h, w, generator=generator) + 5
        labels = {"normal": torch.nn.functional.normalize(labels - 15), "semantics": labels[:, 0].long() % 6}.get(
            task, labels
        )
        valid = torch.rand(5, 1, h, w, generator=generator) > 0.2
        prediction = 20 * torch.rand(5, channels, h, w, generator=generator) + 3
        sigma = 3 * torch.rand(5, 1, h, w, generator=generator)
        batch = Batch(torch.randn(5, 3, H, W, generator=generator), torch.eye(3).expand(5, 3, 3), ("s",) * 5, labels, valid,
                      torch.eye(4).expand(5, 4, 4), stride)  # fmt: skip
        preprocessing = Preprocessing(16, False, (0.3, 0.4, 0.5), (0.2, 0.25, 0.1))
        for of_sigma in (None, sigma):
            grid_3HW = picture_grid(task, batch, preprocessing, prediction, of_sigma)
            step = 5 if H == 16 else 37
            shown.append([list(grid_3HW.shape), grid_3HW[:, 3::step, 4::step].int(), words.copy()])
            words.clear()
    assert_kept(f"step-picture-{task}", shown, atol=1.5)


def test_colours_of_classes_and_limits_without_labels():
    assert pictures._CLASS_COLOURS == (
        (31, 119, 180), (140, 86, 75), (44, 160, 44), (214, 39, 40), (23, 190, 207), (148, 103, 189),
    )  # fmt: skip
    none = torch.zeros(1, 1, 1, 2, dtype=torch.bool)
    low, high = pictures._limits(torch.full((1, 2, 1, 2), 7.0), none)
    assert low.tolist() == [0, 0] and high.tolist() == [1, 1]
    values = torch.arange(1.0, 21.0).view(1, 1, 1, 20)
    assert pictures._shown_most(values, torch.ones_like(values, dtype=torch.bool)) == 19.0  # 95 of 100
    assert pictures._shown_most(values[..., :1], torch.ones(1, 1, 1, 1, dtype=torch.bool)) == 1.0
    assert pictures._shown_most(0 * values, torch.ones_like(values, dtype=torch.bool)) == 1e-6
    assert pictures._shown_most(values, values < 0) == 1.0
    one = torch.full((1, 3, 1, 2), 5.0)
    batch = Batch(torch.zeros(1, 3, 8, 16), torch.eye(3)[None], ("s",), one, ~none, torch.eye(4)[None], 8)
    assert pictures._coord(one, batch).label_B3hw.max() == 0.0  # of no span


# ---- curves


def test_pictures_of_curves(monkeypatch, tmp_path):
    kept = []
    monkeypatch.setattr(
        curves_module, "save_figure", lambda made, path, **more: kept.append([described(made), path.name, more])
    )
    images = np.arange(1, 31) * 4
    epochs = images / 40
    coord = Curve("run-coord", "coord", images, epochs, 5 - images / 50, np.minimum(images, 100.0), 100.0 / images)
    depth = replace(coord, name="run-depth", task="depth", error_N=coord.error_N - 5.0)
    bare = replace(coord, name="run-semantics", task="semantics", error_N=None)
    written = draw_curves([coord, bare], tmp_path, ending="svg", window=2)
    draw_curves([depth], tmp_path, ending="png")
    assert [path.name for path in written] == [name for _, name, _ in kept[:6]]
    assert_kept("curves", kept)
    nan = replace(coord, name="nan", loss_N=np.full(30, np.nan))
    assert_kept("curves-table", [curves_table([coord, depth, bare, nan], 2), curves_table([coord])])


def test_moving_averages_are_over_a_tenth_at_most_and_125_steps():
    steps_N = np.arange(5000.0)
    assert len(smoothed(steps_N, steps_N, 10_000)[0]) == 4501
    image = Curve("r", "coord", steps_N, steps_N, steps_N, steps_N, None)
    assert curves_table([image])[0]["loss"] == pytest.approx(np.mean(steps_N[-125:]))
    assert (
        len(smoothed(steps_N[:19], steps_N[:19], 125)[0]) == 19 and len(smoothed(steps_N[:20], steps_N[:20], 125)[0]) == 19
    )


@pytest.mark.parametrize(
    "epochs, expected",
    [
        ([0, 0, 1, 1], [0.5, 1, 1.5, 2]), ([0, 0, 0, 0, 1], [0.25, 0.5, 0.75, 1, 1.25]), ([3], [4]),
        ([0, 1, 1, 1], [1, 1 + 1 / 3, 1 + 2 / 3, 2]), ([5, 5, 7], [5.5, 6, 8]),
    ],
)  # fmt: skip
def test_epochs_with_their_shares(epochs, expected):
    rows = [curves_module._Row(i, epoch, 0.0, 0.0, 0.0) for i, epoch in enumerate(epochs)]
    np.testing.assert_allclose(curves_module._epochs(rows), expected)


def test_logs_of_a_folder(tmp_path):
    """The CSV where it has rows, else output.log, else a file that is called like one."""
    text = "Iteration:      12, Epoch:   0, Total loss: 1.00, Valid: 50.0%, Avg Time: 0.050s\n"
    for index in range(7):
        (tmp_path / f"run{index}").mkdir()
    for index in range(6):
        (tmp_path / f"run{index}" / "output.log").write_text(text)
    table = "images_seen,epoch,loss,valid_percent,seconds_per_image\n4,0,1.5,20,0.1\n"
    (tmp_path / "run1" / "training_log.csv").write_text(table)
    (tmp_path / "run2" / "training_log.csv").write_text("")
    (tmp_path / "run3" / "a_output.log.1").write_text("x")
    (tmp_path / "run6" / "b_output.log.1").write_text(text)
    assert [path.name for path in find_logs(tmp_path)] == [
        "output.log", "training_log.csv", "output.log", "output.log", "output.log", "output.log", "b_output.log.1",
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError, match=r"fits mars; there are: run0, run1, run2, run3, run4 \.\.\.$"):
        find_logs(tmp_path, ["mars"])
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no training_log\.csv or output\.log in \S+none$"):
        find_logs(tmp_path / "none")
    assert find_logs(tmp_path / "run0" / "output.log") == [tmp_path / "run0" / "output.log"]
    assert [c.name for c in read_curves(find_logs(tmp_path))] == [f"run{index}" for index in range(7)]
    curve = read_curve(tmp_path / "run1" / "training_log.csv")
    assert (curve.images_N.tolist(), curve.loss_N.tolist(), curve.valid_percent_N.tolist()) == ([4], [1.5], [20.0])
    assert curve.error_N is None and curve.error_unit == ""
