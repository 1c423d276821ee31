"""Failures in the middle of a run, each kind of which must be saved after, and damage of what a run is read from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import training.curriculum as curriculum
import training.loop as loop
from evaluation.selection import Candidate
from tests.training.test_loop_parts import CPU, Log, trainer
from training import curves
from training.curves import _task_of, read_curve, read_curves
from training.going_back import NotFinite
from training.options import TrainingOptions
from training.run_folder import RunFolder, StartingPoint
from training.state import Position


def running(tmp_path, monkeypatch, *outcomes):
    """A trainer whose steps end with the given errors, one a round; None: with success."""
    made = trainer(tmp_path, optimizer=None, record=None, run=SimpleNamespace(output=tmp_path))
    made.net = SimpleNamespace(train=lambda: None)
    made.run.mark_done = lambda: made.events.append("done")
    monkeypatch.setattr(loop, "configure_threads", lambda: 1)
    monkeypatch.setattr(loop, "write_records", lambda run, record: None)
    monkeypatch.setattr(loop, "Lanes", lambda net, **of: SimpleNamespace(close=lambda: None))
    left = iter(outcomes)

    def steps(log, interrupted):
        error = next(left)
        if error is not None:
            raise error

    made._steps, made._save_state, made._introduce = steps, lambda log: None, lambda log: made.events.append("introduced")
    made._open_log = lambda: Log(made.events)
    made._save_after_failure = lambda log: made.events.append("saved")
    made._go_back = lambda failure: made.events.append(f"back: {failure}")
    return made


def test_a_run_to_its_end_after_a_loss_that_is_not_finite(tmp_path, monkeypatch):
    made = running(tmp_path, monkeypatch, NotFinite(4, ("a",)), None)
    made.run_from(StartingPoint())
    back = "back: the loss is not finite after 4 images, at a"
    assert made.events == ["introduced", back, "close", "introduced", "Done without errors.", "close", "done"]
    other = running(tmp_path, monkeypatch, None)
    other.ranks = SimpleNamespace(first=False, count=2, device=CPU, parallel=lambda net: net)
    other.run_from(StartingPoint())
    assert "done" not in other.events


@pytest.mark.parametrize("error", [ValueError("v"), OSError("o"), RuntimeError("r")])
def test_whatever_stops_a_run_the_state_is_saved(tmp_path, monkeypatch, error):
    made = running(tmp_path, monkeypatch, error)
    with pytest.raises(type(error)):
        made.run_from(StartingPoint())
    assert made.events == ["introduced", "saved", "close"]


@pytest.mark.parametrize("error", [NotFinite(1, ()), OSError("full"), RuntimeError("gone")])
def test_what_cannot_be_saved_after_a_failure_is_not_the_message(tmp_path, error):
    made = trainer(tmp_path, weights_move=False)

    def save(log):
        made.events.append("tried")
        raise error

    made._save_state = save
    made._save_after_failure(Log([]))
    made.weights_move = True
    made._save_after_failure(Log([]))
    assert made.events == ["tried"]


def test_going_back_to_the_last_good_state(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(loop, "load_state", lambda path: {"from": path})
    monkeypatch.setattr(loop, "restore", lambda state, net, optimizer: Position(6, (1,), 0, {"a": 2}))
    made = trainer(
        tmp_path, net=torch.nn.Linear(1, 1), optimizer=None, run=SimpleNamespace(state="state"), last_step=(8, ("b",))
    )
    made.position = Position(10, (1,), 1)
    made._go_back(NotFinite(10, ("s/a",)))
    assert made.position == Position(6, (1, 10), 2, {"a": 2})
    assert "after 10 images, at s/a; back to the state after 6 images, passing these over" in caplog.text
    with torch.no_grad():
        made.net.weight.fill_(float("inf"))
    made._go_back(NotFinite(10, ("s/a",)))
    assert made.position.passed_over == (1, 8, 10)


# ---- what is read


def test_unnumbered_weights_alone_are_chosen_by_their_figure(tmp_path, monkeypatch):
    def candidate(name, figure):
        return Candidate(tmp_path / name, (figure,), 0.0, "val_sim", None)

    options = TrainingOptions("town", "coord", lr_schedule="step", output_dir=tmp_path)
    run = RunFolder(tmp_path, tmp_path)
    run.mark_done()
    monkeypatch.setattr(curriculum, "_training_options", lambda words: options)
    monkeypatch.setattr(curriculum, "folder_of", lambda options: run)
    monkeypatch.setattr(curriculum, "run_in", lambda folder: None)
    words = ["python", "test_single_task.py", "town", "--task", "coord", "--section", "val_sim"]
    done = curriculum._Attempts(5, 0)
    for names, chosen in (
        (("model.net", "other.net"), "model.net"),
        (("model.net", "ckpt_iter_0000004.net"), "ckpt_iter_0000004.net"),
    ):
        monkeypatch.setattr(
            curriculum, "rank", lambda *of, names=names: [candidate(name, i) for i, name in enumerate(names)]
        )
        row = curriculum._training("pretrain", done, done, [], words)
        assert (
            row.selected.name == chosen and row.state == "done" and (row.title, row.unit) == ("median position error", "m")
        )


def test_a_bar_over_many_logs(tmp_path, monkeypatch):
    bars = []
    monkeypatch.setattr(curves, "tqdm", lambda logs, **of: bars.append(of) or logs)
    logs = []
    for index in range(8):
        (tmp_path / f"r{index}").mkdir()
        logs.append(tmp_path / f"r{index}" / "output.log")
        logs[-1].write_text("Iteration: 1, Epoch: 0, Total loss: 1.0, Valid: 50.0%\n")
    assert len(read_curves(logs)) == 8 and len(read_curves(logs[:7])) == 7
    told = {"desc": "read logs", "unit": "run", "leave": False, "dynamic_ncols": True}
    assert bars == [{**told, "disable": False}, {**told, "disable": True}]


def test_damaged_logs_are_named(tmp_path):
    header = "images_seen,seconds_per_image,epoch,loss,valid_percent\n"
    texts = {
        "short": (header + "2,1\n", "NoneType"),
        "word": (header + "2,1,x,1,1\n", "invalid literal"),
        "column": ("images_seen,loss,seconds_per_image\n2,1,3\n", "'epoch'"),
    }
    for name, (text, said) in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name} is damaged: .*({said})"):
            read_curve(tmp_path / name)


def test_a_damaged_record_leaves_the_folders_name(tmp_path):
    folder = tmp_path / "town-depth-x"
    folder.mkdir()
    assert _task_of(folder) == "depth"
    (folder / "training.json").write_text("{")
    assert _task_of(folder) == "depth" and _task_of(tmp_path) is None


@pytest.mark.parametrize("error", [ValueError("v"), FileNotFoundError("f")])
def test_stages_without_results_are_open(tmp_path, monkeypatch, error):
    def fails(*of):
        raise error

    options = TrainingOptions("town", "coord", lr_schedule="step", output_dir=tmp_path)
    run = RunFolder(tmp_path, tmp_path)
    monkeypatch.setattr(curriculum, "_training_options", lambda words: options)
    monkeypatch.setattr(curriculum, "folder_of", lambda options: run)
    monkeypatch.setattr(curriculum, "rank", fails)
    monkeypatch.setattr(curriculum, "run_in", lambda folder: None)
    words = ["python", "test_single_task.py", "town", "--task", "coord", "--section", "val_sim"]
    done, never = curriculum._Attempts(5, 0), curriculum._Attempts()
    run.mark_done()
    assert curriculum._training("pretrain", done, done, [], words).state == "open"
    assert curriculum._training("pretrain", curriculum._Attempts(5, 1), never, [], words).state == "failed"
    monkeypatch.setattr(curriculum, "find_weights", fails)
    assert [row.state for row in curriculum._tests("test x", done, words)] == ["open"]
    assert [row.state for row in curriculum._tests("test x", curriculum._Attempts(5, 130), words)] == ["interrupted"]
