"""Several processes train like one: `torchrun` with gloo, losses against those of one process, and what stops them all."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

import training.loop as loop
from dataloader.sampler import RunBatchSampler
from networks import load_state_dict
from tests.training.small_runs import ENVIRONMENT, command, options
from training.loop import train
from training.ranks import Ranks, _device_of_process, processes_of_the_run
from training.run_folder import folder_of

# Mixed sizes and a last batch of one image, of which one of two processes gets nothing.
PAIRS = ["--tiny", "--uncertainty", "mle", "--image_height", "32", "--batch_size", "3", "--sim_data_chunk", "0",
         "--device", "cpu", "--precision", "float32", "--max_tilt", "5", "--shading", "0.1"]  # fmt: skip


@pytest.fixture
def pairs(plane_section):
    plane_section(3, "scene/train_drone_real")
    plane_section(4, "scene/train_drone_sim", height=56, width=112)


def rows(run):
    return [
        {name: float(row[name]) for name in ("images_seen", "loss", "valid_percent", "coord", "reprojection")}
        for row in csv.DictReader((run.output / "training_log.csv").open())
    ]


def assert_same(run, other):
    """The losses, and the gradients: what Adam has averaged of them, for its steps do not depend on their scale."""
    assert [row["images_seen"] for row in rows(run)] == [row["images_seen"] for row in rows(other)]
    for a, b in zip(rows(run), rows(other), strict=True):
        assert a == pytest.approx(b, rel=1e-4), a["images_seen"]
    a, b = (torch.load(r.state, weights_only=True)["optimizer"]["state"] for r in (run, other))
    assert a.keys() == b.keys() and len(a) > 50
    for number in a:
        expected = b[number]["exp_avg"]
        assert (a[number]["exp_avg"] - expected).norm() < 0.02 * expected.norm() + 1e-6, number


def torchrun(words, processes=2):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    return subprocess.Popen(
        [*launcher, *words[1:]], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def process_numbered(number, launcher):
    """Identity of one of the launcher's children."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == launcher.pid and f"RANK={number}" in (folder / "environ").read_text().split("\0"):
                return int(folder.name)
        except OSError:
            continue  # gone meanwhile
    raise AssertionError(f"no process {number}")


def test_two_processes_stopped_anywhere_and_continued_by_one_equal_one(tmp_path, pairs, repository):
    # Steps so small that what differs by rounding is not amplified from step to step.
    arguments = [*PAIRS, "--epochs", 16, "--learningrate", 1e-7]
    whole = train(options(tmp_path, *arguments, "--session", "whole"))
    words = command(repository, tmp_path, *arguments, "--session", "both")
    run = folder_of(options(tmp_path, *arguments, "--session", "both"))
    launcher = torchrun(words)
    while launcher.poll() is None and not ((run.output / "training_log.csv").is_file() and len(rows(run)) > 1):
        time.sleep(0.02)
    # The one that writes no file.
    os.kill(process_numbered(1, launcher), signal.SIGINT)
    told, _ = launcher.communicate(timeout=300)
    assert launcher.returncode != 0 and not run.done
    assert told.count("continue with --auto_resume") == 1
    seen = torch.load(run.state, weights_only=True)["images_seen"]
    assert f"interrupted after {seen} images" in told and rows(run)[-1]["images_seen"] == seen < 16 * 7
    resumed = train(options(tmp_path, *arguments, "--session", "both", "--auto_resume"))
    assert_same(whole, resumed)


POISONED = """
import sys
import training.loop as loop
original = loop.prepare_for_training

def prepare(raw, *arguments):
    batch = original(raw, *arguments)
    if any(stem.endswith("sim/view_002") for stem in batch.stems):
        batch.images_B3HW[:] = float("nan")
    return batch

loop.prepare_for_training = prepare
import train_single_task
sys.exit(train_single_task.main())
"""


def test_two_processes_agree_that_a_loss_is_not_finite_and_continue_what_one_began(tmp_path, pairs, repository, monkeypatch):
    arguments = [*PAIRS, "--epochs", 3]
    words = [*map(str, arguments), "--session", "poisoned"]
    script = tmp_path / "poisoned.py"
    script.write_text(POISONED)
    original, calls = loop._Trainer._step, []

    def step(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise ValueError("stop")
        return original(self, *arguments)

    monkeypatch.setattr(loop._Trainer, "_step", step)
    with pytest.raises(ValueError, match="stop"):
        train(options(tmp_path, *words))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(repository))
    launcher = torchrun([sys.executable, str(script), *command(repository, tmp_path, *words, "--auto_resume")[2:]])
    told, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, told
    run = folder_of(options(tmp_path, *words))
    state = torch.load(run.state, weights_only=True)
    assert run.done and state["failures"] == 2 == len(state["passed_over"]) and state["images_seen"] == 21
    assert told.count("the loss is not finite") == 2 and told.count("sim/view_002") == 2  # one speaks for both
    assert len(rows(run)) == 9 - 2
    assert all(torch.isfinite(v).all() for v in load_state_dict(run.latest).values())


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_are_the_whole_batch_without_an_image_twice(count):
    ranks = [Ranks(torch.device("cpu"), number, count) for number in range(count)]
    counted = Counter()
    samplers = [RunBatchSampler([False] * 11, 4, seed=1, epochs=1, share=r.share_of) for r in ranks]
    whole = list(RunBatchSampler([False] * 11, 4, seed=1, epochs=1))
    assert [len(batch) for batch in whole] == [4, 4, 3]
    for batch, *shares in zip(whole, *samplers, strict=True):
        assert [r.share_of(batch) for r in ranks] == shares
        assert all(shares)  # every process has something to compute
        places = [r.place_of(len(batch)) for r in ranks]
        kept = [index for mine, (_, images) in zip(shares, places, strict=True) for index in mine[:images]]
        assert [batch[first] for first, images in places if images] == [mine[0] for mine, (_, n) in zip(shares, places) if n]
        assert kept == batch
        counted.update(kept)
    assert counted == dict.fromkeys(range(11), 1)


def test_a_process_alone_needs_no_launcher(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")  # of somebody else
    with processes_of_the_run("cpu") as ranks:
        assert (ranks.first, ranks.count, ranks.largest(3, 1), ranks.first_decides(lambda: 5)) == (True, 1, [3, 1], 5)


def test_devices_of_several_processes(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="--device cuda:1: several processes take auto, cuda"):
        _device_of_process("cuda:1")
    assert _device_of_process("cpu").type == "cpu"
    monkeypatch.setattr("training.ranks.choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 processes on a machine with 1 visible GPUs"):
        _device_of_process("auto")
