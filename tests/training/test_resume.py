"""A run that was stopped, by whatever, ends like one that was not; and it is not continued as another one."""

import csv
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import records.files
import train_single_task
import training.loop as loop
from networks import load_state_dict
from networks.lanes import Lanes
from runs import read_record
from tests.training.small_runs import ENVIRONMENT, SMALL, command, options
from training.loop import train
from training.run_folder import folder_of


def equal_weights(a, b):
    a, b = load_state_dict(a), load_state_dict(b)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def last_checkpoint(run):
    return max(run.checkpoints.glob("ckpt_iter_*.net"))


def step_lines(run):
    """What output.log says of the steps, without times."""
    lines = (run.output / "output.log").read_text().splitlines()
    return [re.sub(r"^.*INFO: |Avg Time.*", "", line) for line in lines if "Iteration" in line or "Regression" in line]


def csv_rows(run):
    return [{**row, "seconds_per_image": ""} for row in csv.DictReader((run.output / "training_log.csv").open())]


def fail_at(monkeypatch, number, error):
    original, calls = loop._Trainer._step, []

    def step(self, raw, draws, epoch, log):
        calls.append(1)
        if len(calls) == number:
            raise error
        return original(self, raw, draws, epoch, log)

    monkeypatch.setattr(loop._Trainer, "_step", step)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, plane_section, monkeypatch, optimizer):
    plane_section(5)
    arguments = [*SMALL, "--epochs", 4, "--optimizer", optimizer]
    whole = train(options(tmp_path, *arguments, "--session", "whole"))
    for stopped_at in (1, 2, 7):
        fail_at(monkeypatch, stopped_at, ValueError("the disk is on fire"))
        with pytest.raises(ValueError, match="on fire"):
            train(options(tmp_path, *arguments, "--session", f"parts{stopped_at}"))
        monkeypatch.undo()
        resumed = train(options(tmp_path, *arguments, "--session", f"parts{stopped_at}", "--auto_resume"))
        assert resumed.latest_name == "model_auto_resume.net"
        assert equal_weights(last_checkpoint(whole), last_checkpoint(resumed)), stopped_at
        assert step_lines(whole) == step_lines(resumed) and csv_rows(whole) == csv_rows(resumed), stopped_at


def test_kills_at_any_moment_change_nothing(tmp_path, plane_section, repository):
    plane_section(6)
    arguments = [*SMALL, "--epochs", 25]
    # Undisturbed by the command too: it runs on other threads than this process.
    subprocess.run(
        command(repository, tmp_path, *arguments, "--session", "whole"), env=ENVIRONMENT, check=True, capture_output=True
    )
    whole = folder_of(options(tmp_path, *arguments, "--session", "whole"))
    rng, killed = random.Random(3), 0
    words = command(repository, tmp_path, *arguments, "--session", "killed", "--auto_resume")
    run = folder_of(options(tmp_path, *arguments, "--session", "killed"))
    for _ in range(4):
        process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 90
        while not run.state.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert equal_weights(last_checkpoint(whole), last_checkpoint(run))
    assert step_lines(whole) == step_lines(run) and csv_rows(whole) == csv_rows(run)
    board = EventAccumulator(str(run.output / "tensorboard"))
    board.Reload()
    steps = [event.step for event in board.Scalars("loss")]
    assert steps == sorted(set(steps)) and steps[-1] == 150


def test_ctrl_c_saves_and_the_run_continues(tmp_path, plane_section, repository):
    plane_section(4)
    arguments = [*SMALL, "--epochs", 60, "--num_workers", 2]
    process = subprocess.Popen(
        command(repository, tmp_path, *arguments), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("out/*/ckpt_iter_0000002.net")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: loaders get it too
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "--auto_resume" in errors.splitlines()[-1] and "Traceback" not in errors
    folder = next((tmp_path / "out").iterdir())
    assert not list(folder.glob(".part*"))
    seen = torch.load(folder / "resume_state.pt", weights_only=True)["images_seen"]
    resumed = train(options(tmp_path, *arguments, "--auto_resume"))
    assert 0 < seen < 240 and (resumed.checkpoints / "ckpt_iter_0000240.net").is_file()


CHANGED = (
    (["--batch_size", 3], "--batch_size was 2, now 3"),
    (["--seed", 7], "--seed was 2021, now 7"),
    (["--optimizer", "muon"], "--optimizer was adam, now muon"),
    (["--image_height", 40], "preprocessing.image_height was 32, now 40"),
    (["--max_angle", 5], "--max_angle was 30.0, now 5.0"),
    (["--softclamp", 20], "--softclamp was 100.0, now 20.0"),
    (["--lr_schedule", "onecycle"], "--lr_schedule was step, now onecycle"),
    (["--precision", "float32"], "--precision was auto, now float32"),
)


@pytest.mark.parametrize("finished", [True, False])
def test_another_run_of_the_same_name_is_refused(tmp_path, plane_section, monkeypatch, finished):
    plane_section(3)
    if not finished:
        fail_at(monkeypatch, 2, ValueError("stop"))
    try:
        train(options(tmp_path, *SMALL, "--epochs", 1))
    except ValueError:
        monkeypatch.undo()
    run = folder_of(options(tmp_path, *SMALL, "--epochs", 1))
    before = {path: path.stat().st_mtime_ns for path in run.output.iterdir()}
    for changed, named in CHANGED:
        with pytest.raises(ValueError, match=re.escape(named)):
            train(options(tmp_path, *SMALL, "--epochs", 1, *changed, "--auto_resume"))
        assert {path: path.stat().st_mtime_ns for path in run.output.iterdir()} == before


def test_where_files_lie_and_how_they_are_read_may_change(tmp_path, plane_section, monkeypatch):
    plane_section(5)
    whole = train(options(tmp_path, *SMALL, "--epochs", 2, "--session", "whole"))
    fail_at(monkeypatch, 4, ValueError("stop"))
    with pytest.raises(ValueError, match="stop"):
        train(options(tmp_path, *SMALL, "--epochs", 2))
    monkeypatch.undo()
    shutil.move(tmp_path / "scene", tmp_path / "moved" / "scene")
    resumed = train(
        options(tmp_path, *SMALL, "--epochs", 2, "--auto_resume", "--datasets_dir", tmp_path / "moved", "--num_workers", 1)
    )
    assert equal_weights(last_checkpoint(whole), last_checkpoint(resumed))


def test_a_run_whose_data_changed_is_refused_and_measures_anew_elsewhere(tmp_path, plane_section):
    plane_section(3)
    first = train(options(tmp_path, *SMALL, "--epochs", 1))
    plane_section(3, seed=5)  # other images, poses and labels under the same names
    with pytest.raises(ValueError, match="section train_sim was 3 samples, content"):
        train(options(tmp_path, *SMALL, "--epochs", 1, "--auto_resume"))
    other = train(options(tmp_path, *SMALL, "--epochs", 1, "--session", "anew"))
    a, b = (read_record(run.checkpoints / "training.json") for run in (first, other))
    assert a.statistics != b.statistics and a.sections != b.sections


def test_statistics_do_not_depend_on_which_command_ran_first(tmp_path, plane_section):
    plane_section(3)
    plane_section(2, "scene/train_drone_sim", seed=1)
    plane_section(2, "scene/train_drone_real", seed=1)
    pairs = [*SMALL, "--real_data_chunk", 1, "--sim_data_chunk", 0, "--epochs", 1]
    first = train(options(tmp_path, *pairs, "--session", "a"))
    train(options(tmp_path, *SMALL, "--epochs", 1))
    second = train(options(tmp_path, *pairs, "--session", "b"))
    a, b = (read_record(run.checkpoints / "training.json") for run in (first, second))
    assert a.statistics == b.statistics
    assert not list((tmp_path / "scene").glob("*.json"))


def test_fine_tuning_notices_that_its_starting_weights_were_replaced(tmp_path, plane_section):
    plane_section(3)
    weights = tmp_path / "weights.net"
    shutil.copy(train(options(tmp_path, *SMALL, "--epochs", 1)).latest, weights)
    tune = [*SMALL, "--epochs", 1, "--network_in", weights]
    train(options(tmp_path, *tune))
    assert train(options(tmp_path, *tune, "--auto_resume")).done
    shutil.copy(train(options(tmp_path, *SMALL, "--epochs", 2)).latest, weights)
    with pytest.raises(ValueError, match="the weights of --network_in was .*, now"):
        train(options(tmp_path, *tune, "--auto_resume"))


def test_two_trainings_of_one_run_at_once_are_refused(tmp_path, plane_section):
    plane_section(2)
    run = train(options(tmp_path, *SMALL, "--epochs", 1))
    for flag in run.output.glob("FLAG*"):
        flag.unlink()
    with run.held(), pytest.raises(BlockingIOError, match="another process is training"):
        train(options(tmp_path, *SMALL, "--epochs", 1, "--auto_resume"))


def test_epoch_plus_equals_a_longer_run_even_when_it_was_killed_early(tmp_path, plane_section, monkeypatch):
    plane_section(3)
    with pytest.raises(FileNotFoundError, match="epoch_plus"):
        train(options(tmp_path, *SMALL, "--epochs", 3, "--epoch_plus"))
    assert not (tmp_path / "out").exists()
    whole = train(options(tmp_path, *SMALL, "--epochs", 3, "--session", "whole"))
    train(options(tmp_path, *SMALL, "--epochs", 1))
    fail_at(monkeypatch, 1, ValueError("stop"))
    with pytest.raises(ValueError, match="stop"):
        train(options(tmp_path, *SMALL, "--epochs", 3, "--epoch_plus"))
    monkeypatch.undo()
    longer = train(options(tmp_path, *SMALL, "--epochs", 3, "--auto_resume"))
    assert equal_weights(last_checkpoint(whole), last_checkpoint(longer))
    assert step_lines(whole) == step_lines(longer)


def test_epoch_plus_refuses_a_run_of_other_options(tmp_path, plane_section):
    plane_section(3)
    train(options(tmp_path, *SMALL, "--epochs", 1, "--seed", 5))
    with pytest.raises(ValueError, match="--seed was 5, now 2021"):
        train(options(tmp_path, *SMALL, "--epochs", 3, "--epoch_plus"))


def test_a_published_run_goes_on_from_the_newest_of_its_weights(tmp_path, plane_section):
    plane_section(4)
    donor = train(options(tmp_path, *SMALL, "--epochs", 2, "--session", "donor"))
    words = [*SMALL, "--epochs", 3, "--ckpt_dir", tmp_path / "ckpt", "--auto_resume"]
    run = folder_of(options(tmp_path, *words))
    run.output.mkdir(parents=True)
    run.checkpoints.mkdir(parents=True)
    shutil.copy(donor.checkpoints / "ckpt_iter_0000002.net", run.checkpoints)
    shutil.copy(last_checkpoint(donor), run.output / "model.net")
    (run.output / "output.log").write_text("Iteration:       8, Epoch:   1, Total loss: 3.00, Valid: 0.0%, Avg Time: 0.1s\n")
    resumed = train(options(tmp_path, *words))
    seen = [int(row["images_seen"]) for row in csv.DictReader((resumed.output / "training_log.csv").open())]
    assert seen == [10, 12]  # the last epoch, from the 8 images of model.net, not the 2 of the checkpoint


def _poison(monkeypatch, positions, value=float("nan")):
    """Losses of the steps that start at these positions are `value`."""
    original = loop.prepare_for_training

    def prepare(raw, *arguments):
        batch = original(raw, *arguments)
        if any(stem.endswith(positions) for stem in batch.stems):
            batch.images_B3HW[:] = value
        return batch

    monkeypatch.setattr(loop, "prepare_for_training", prepare)


def test_a_loss_that_is_not_finite_is_passed_over_and_named(tmp_path, plane_section, monkeypatch, caplog):
    plane_section(6)
    _poison(monkeypatch, ("view_003",))
    run = train(options(tmp_path, *SMALL, "--epochs", 2))
    assert "view_003" in caplog.text and "back to the state after" in caplog.text
    state = torch.load(run.state, weights_only=True)
    assert len(state["passed_over"]) == 2 == state["failures"]
    assert all(torch.isfinite(v).all() for v in load_state_dict(run.latest).values())
    rows = [int(row["images_seen"]) for row in csv.DictReader((run.output / "training_log.csv").open())]
    assert rows == sorted(set(rows)) and len(rows) == 4  # six steps, two of them passed over


def test_a_loss_that_is_never_finite_ends_with_an_error(tmp_path, plane_section, monkeypatch):
    plane_section(6)
    _poison(monkeypatch, ("view_001", "view_003", "view_005", "view_002"))
    with pytest.raises(FloatingPointError, match=r"went back 3 times.*--learningrate"):
        train(options(tmp_path, *SMALL, "--epochs", 5))
    run = folder_of(options(tmp_path, *SMALL, "--epochs", 5))
    state = torch.load(run.state, weights_only=True)
    assert all(torch.isfinite(v).all() for v in state["network"].values())


def test_gradients_that_are_not_finite_never_reach_a_saved_state(tmp_path, plane_section, monkeypatch, caplog):
    plane_section(6)
    original, calls = Lanes.backward, []

    def backward(self):
        original(self)
        calls.append(1)
        if len(calls) == 2:
            next(self._net.parameters()).grad[:] = float("inf")

    monkeypatch.setattr(Lanes, "backward", backward)
    run = train(options(tmp_path, *SMALL, "--epochs", 2))
    state = torch.load(run.state, weights_only=True)
    assert 2 in state["passed_over"] and state["failures"] == 1  # the step that spoilt the weights, not only the next
    assert all(torch.isfinite(v).all() for v in state["network"].values())


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, plane_section, monkeypatch, capsys):
    plane_section(4)
    original, calls = records.files.os.fsync, []

    def fsync(number):
        calls.append(1)
        if len(calls) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(number)

    monkeypatch.setattr(records.files.os, "fsync", fsync)
    monkeypatch.setattr(sys, "argv", command(tmp_path, tmp_path, *SMALL, "--epochs", "3")[1:])
    assert train_single_task.main() == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1].startswith("error: cannot write ") and "No space left" in errors[-1]
    monkeypatch.undo()
    run = folder_of(options(tmp_path, *SMALL, "--epochs", 3))
    assert not list(run.output.glob(".part*"))
    whole = train(options(tmp_path, *SMALL, "--epochs", 3, "--session", "whole"))
    resumed = train(options(tmp_path, *SMALL, "--epochs", 3, "--auto_resume"))
    assert equal_weights(last_checkpoint(whole), last_checkpoint(resumed))


def test_a_killed_loader_is_one_line_and_the_run_goes_on(tmp_path, plane_section, monkeypatch, capsys):
    plane_section(4)
    original = loop.collate

    def collate(samples):
        if any(s.index == 2 for s in samples):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(samples)

    monkeypatch.setattr(loop, "collate", collate)
    words = command(tmp_path, tmp_path, *SMALL, "--epochs", "2", "--num_workers", "1")[1:]
    monkeypatch.setattr(sys, "argv", words)
    assert train_single_task.main() == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert "DataLoader worker" in errors[-1] and "--auto_resume" in errors[-1]
    monkeypatch.undo()
    resumed = train(options(tmp_path, *SMALL, "--epochs", 2, "--auto_resume"))
    assert resumed.done and (resumed.checkpoints / "ckpt_iter_0000008.net").is_file()


def test_a_record_of_another_version_is_refused(tmp_path, plane_section):
    plane_section(2)
    run = train(options(tmp_path, *SMALL, "--epochs", 1))
    path = run.checkpoints / "training.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(ValueError, match="version 99"):
        train(options(tmp_path, *SMALL, "--epochs", 1, "--auto_resume"))
