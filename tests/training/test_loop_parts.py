"""The loop's decisions, each by itself, with everything heavy replaced: what is asked of whom, and when states are saved."""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import training.command as command_module
import training.identity as identity
import training.loop as loop
from dataloader.preprocessing import Preprocessing
from dataloader.scenes import PUBLISHED_SCENES
from evaluation.checkpoints import IterationRange
from loss import LossResult
from networks import Architecture
from records.files import plain
from runs.record import CameraRecord, SectionRecord
from tests.kept import assert_kept
from tests.training.small_runs import options
from training.loop import TrainingInterrupted, interrupt_flag
from training.options import DecoderOptions, RefinementOptions, TrainingOptions
from training.ranks import PeerStopped, Ranks, processes_of_the_run
from training.run_folder import RunFolder, StartingPoint, choose_start
from training.state import Position

CPU = torch.device("cpu")


class FakeRanks(SimpleNamespace):
    """One of two processes, alone in reality."""

    first, count, local_count, number, device = True, 2, 2, 0, CPU

    def largest(self, *numbers):
        return list(numbers)

    def share_of(self, draws):
        return list(draws[::2])

    def first_decides(self, function):
        return function()

    def parallel(self, net):
        return net


class Log:
    steps_waiting = 0

    def __init__(self, events):
        self.events = events

    def message(self, text):
        self.events.append(text)

    def flush(self):
        self.events.append("flush")

    def sizes(self):
        return {"output.log": 7}

    def close(self):
        self.events.append("close")


def trainer(tmp_path, *arguments, images=5, ranks=None, **of):
    made = object.__new__(loop._Trainer)
    made.options = options(tmp_path, "--batch_size", 2, "--real_data_chunk", 0, "--device", "cpu", *arguments)
    made.dataset = SimpleNamespace(section_of=["train_sim"] * images)
    made.ranks, made.device, made.num_workers = ranks or Ranks(CPU), CPU, 3
    made.images_in_epoch, made.position, made.state_saved_at = images, Position(), 0.0
    made.total_images = made.options.epochs * images
    made.events, made.now = [], 0.0
    for name, value in of.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def loaders(monkeypatch):
    """What is asked of the loader, which yields the draws themselves."""
    asked = []

    def loader(dataset, *, batch_sampler, **more):
        asked.append(more)
        return iter(list(batch_sampler))

    monkeypatch.setattr(loop, "DataLoader", loader)
    return asked


def steps(made, monkeypatch, *, seconds_a_step=1.0, waiting=(), interrupted_at=None, passed_over=()):
    made.position = replace(made.position, passed_over=passed_over)
    stop, log, events, waiting = threading.Event(), Log(made.events), made.events, iter(waiting)

    def step(raw, draws, epoch, log):
        events.append(f"step of {len(draws)} after {made.position.images_seen} in epoch {epoch}")
        made.now += seconds_a_step
        log.steps_waiting = next(waiting, 0)
        if made.position.images_seen == interrupted_at:
            stop.set()

    def saved(log):
        events.append("state" if log is not None else "state without log")
        made.state_saved_at = made.now

    made._step, made._save_state = step, saved
    made._save_checkpoint = lambda: events.append("checkpoint")
    made._epoch_done = lambda log: events.append("epoch done")
    monkeypatch.setattr(loop.time, "monotonic", lambda: made.now)
    made._steps(log, stop)
    return events


def test_the_steps_of_two_epochs(tmp_path, monkeypatch, loaders):
    made = trainer(tmp_path, "--epochs", 2)
    events = steps(made, monkeypatch, seconds_a_step=30.0, waiting=(9, 10, 0, 9, 10))
    assert_kept("loop-steps", events, exact=True)
    assert loaders[0].pop("collate_fn") is loop.collate
    assert loaders == [{"num_workers": 3, "pin_memory": False, "worker_init_fn": loop.ignore_interrupts}]
    debug = steps(trainer(tmp_path, "--epochs", 1, "--debug"), monkeypatch, waiting=(1, 1, 1))
    assert debug.count("flush") == 4 and debug.count("state") == 1
    passed = steps(trainer(tmp_path, "--epochs", 1), monkeypatch, passed_over=(2,))
    assert [event for event in passed if event.startswith("step")] == [
        "step of 2 after 0 in epoch 0",
        "step of 1 after 4 in epoch 0",
    ]


def test_states_are_saved_every_minute_by_the_first_process(tmp_path, monkeypatch, loaders):
    for seconds, first, saved in ((60.0, True, 2), (61.0, True, 3), (61.0, False, 1)):
        made = trainer(tmp_path, "--epochs", 1, ranks=FakeRanks(first=first))
        assert steps(made, monkeypatch, seconds_a_step=seconds).count("state") == saved, (seconds, first)
    assert loaders[-1]["worker_init_fn"] is loop._ignore_signals


def test_an_interruption_is_saved_and_says_where(tmp_path, monkeypatch, loaders):
    made = trainer(tmp_path, "--epochs", 3)
    with pytest.raises(TrainingInterrupted, match="^interrupted after 4 images; continue with --auto_resume$"):
        steps(made, monkeypatch, interrupted_at=2)
    assert made.events[-2:] == ["step of 2 after 2 in epoch 0", "state"] and made.position.images_seen == 4


@pytest.mark.parametrize("epochs, task, saved", [(7, "coord", [25, 35]), (10, "coord", [25, 50]), (3, "coord", [15])])
def test_checkpoints_are_saved_every_few_epochs_and_at_the_end(tmp_path, monkeypatch, epochs, task, saved):
    made = trainer(tmp_path, "--epochs", epochs, net=None, run=SimpleNamespace(latest="latest", save_checkpoint=None))
    kept, checkpoints, states = [], [], []
    monkeypatch.setattr(loop, "save_network", lambda net, path: kept.append(path))
    made._save_checkpoint = lambda: checkpoints.append(made.position.images_seen)
    made._save_state = lambda log: states.append(made.position.images_seen)
    made._check_weights = lambda: None
    for epoch in range(1, epochs + 1):
        made.position = Position(5 * epoch)
        made._epoch_done(Log(made.events))
    assert checkpoints == states == saved and len(kept) == epochs
    assert made.events == [f"Saved a checkpoint after {images} images" for images in saved]
    made.ranks, made.saved = FakeRanks(first=False), []
    made._epoch_done(Log([]))
    assert len(kept) == epochs
    del made._save_checkpoint
    made.run.save_checkpoint = lambda net, images: made.saved.append(images)
    made._save_checkpoint()
    made.ranks = Ranks(CPU)
    made._save_checkpoint()
    assert made.saved == [5 * epochs]


def test_a_state_holds_the_sizes_of_the_logs(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        loop, "save_state", lambda path, record, net, optimizer, position, parts: saved.append((position, parts))
    )
    monkeypatch.setattr(loop.time, "monotonic", lambda: 123.0)
    made = trainer(
        tmp_path, run=SimpleNamespace(state="state"), record=None, net=torch.nn.Linear(1, 1), optimizer=None, parts=4
    )
    made._save_state(None)
    made._save_state(Log(made.events))
    assert saved == [(Position(), 4), (Position(log_bytes={"output.log": 7}), 4)] and made.state_saved_at == 123.0
    made.ranks = FakeRanks(first=False)
    made._save_state(None)
    assert len(saved) == 2
    with torch.no_grad():
        made.net.weight.fill_(torch.nan)
    made.last_step = (3, ("s/a",))
    with pytest.raises(loop.NotFinite, match="after 3 images, at s/a"):
        made._save_state(Log([]))
    made.weights_move = True
    made._save_after_failure(Log([]))  # nothing is tried
    made.weights_move = False
    made._save_after_failure(Log([]))  # in vain
    assert len(saved) == 2


def test_a_log_of_the_first_process_only(tmp_path, monkeypatch):
    made = trainer(tmp_path, run=SimpleNamespace(output="out"), total_images=10)
    made.position = Position(3, log_bytes={"a": 1})
    monkeypatch.setattr(loop, "TrainingLog", lambda *of: of)
    assert made._open_log() == ("out", "coord", 10, 3, {"a": 1})
    made.ranks = FakeRanks(first=False)
    assert type(made._open_log()) is loop.StepFigures


def test_how_a_run_introduces_itself(tmp_path):
    record = SimpleNamespace(software={"python": "3"}, options={"seed": 1, "epochs": 2})
    run = SimpleNamespace(output="out", checkpoints="ckpt")
    made = trainer(tmp_path, record=record, run=run, net=torch.nn.Linear(3, 2))
    made._introduce(Log(made.events))
    made.position = Position(6)
    made._introduce(Log(made.events))
    assert_kept("introduction", made.events, exact=True)


class Sentinel(Exception):
    pass


@pytest.mark.parametrize(
    "start, ranks, batch, expected",
    [
        (StartingPoint(), None, 8, (4, 4, 4, 0)),
        (StartingPoint(), None, 3, (3, 3, 4, 0)),
        (StartingPoint(state={"parts": 2}), None, 8, (2, 2, 4, 77)),
        (StartingPoint(weights={"w": 1}, images_seen=9), None, 8, (4, 4, 4, 9)),
        (StartingPoint(), FakeRanks(), 8, (4, 1, 4, 0)),
        (StartingPoint(), FakeRanks(count=1, device=torch.device("cuda")), 8, (1, 1, 1, 0)),
    ],
)
def test_how_a_run_starts(tmp_path, monkeypatch, start, ranks, batch, expected):
    """Parts of a batch, what runs them, threads, position; the state comes before logs and records."""
    events, lanes = [], []
    logs_from = tmp_path / "from"
    logs_from.mkdir()
    (logs_from / "output.log").write_text("earlier")
    (tmp_path / "to").mkdir()
    net = SimpleNamespace(train=lambda: events.append("train"))
    made = trainer(tmp_path, "--batch_size", batch, net=net, optimizer=None,
                   run=SimpleNamespace(output=tmp_path / "to", mark_done=None), record=None)  # fmt: skip
    made.ranks = ranks or Ranks(CPU)
    made.device = made.ranks.device
    monkeypatch.setattr(loop, "configure_threads", lambda: 4)
    monkeypatch.setattr(loop, "restore", lambda state, net, optimizer: Position(77))
    monkeypatch.setattr(loop, "load_published", lambda net, weights: events.append(weights))
    monkeypatch.setattr(loop, "write_records", lambda run, record: events.append("records"))
    monkeypatch.setattr(
        loop, "Lanes", lambda net, **of: lanes.append(of) or SimpleNamespace(close=lambda: events.append("closed"))
    )
    made._save_state = lambda log: events.append("state")

    def stop():
        raise Sentinel

    made._open_log = stop
    with pytest.raises(Sentinel):
        made.run_from(replace(start, logs_from=logs_from))
    parts, of_lanes, threads, images = expected
    assert made.parts == parts and lanes == [{"parts": of_lanes, "lanes": threads}] and made.position.images_seen == images
    loaded = [{"w": 1}] if start.weights else []
    assert events == [*loaded, "state", "records", "train", "closed"]
    assert (tmp_path / "to" / "output.log").read_text() == "earlier"


@pytest.mark.parametrize(
    "workers, device, local, cores, expected",
    [
        (None, "cpu", 1, 8, 0), (3, "cpu", 1, 8, 3), (0, "cuda", 1, 8, 0), (None, "cuda", 1, 8, 8), (None, "cuda", 1, 32, 8),
        (None, "cuda", 2, 8, 4), (None, "cuda", 4, 2, 1), (None, "cuda", 1, None, 1),
    ],
)  # fmt: skip
def test_what_a_process_takes_of_its_machine(tmp_path, monkeypatch, workers, device, local, cores, expected):
    made, datasets = [], []

    def dataset(sections, task, height, **more):
        datasets.append((len(sections), task, height, more))
        return [0, 1, 2]

    record = SimpleNamespace(images_per_epoch=3, preprocessing=SimpleNamespace(image_height=96))
    run = SimpleNamespace(done=False, record=lambda: None, held=loop.nullcontext, checkpoints="here")
    monkeypatch.setattr(loop, "SectionDataset", dataset)
    monkeypatch.setattr(loop, "check_geometry", lambda dataset: None)
    monkeypatch.setattr(loop, "folder_of", lambda options: run)
    monkeypatch.setattr(loop, "build_record", lambda *of: record)
    monkeypatch.setattr(loop, "choose_start", lambda *of: (run, "start"))
    monkeypatch.setattr(loop, "build_network", lambda *of: SimpleNamespace(to=lambda where, **more: (where, more)))
    monkeypatch.setattr(loop.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(loop, "_Trainer", lambda *of: made.append(of) or SimpleNamespace(run_from=made.append))
    words = [] if workers is None else ["--num_workers", workers]
    of = options(tmp_path, *words, "--cache_gb", 1.5, "--batch_size", 2, "--real_data_chunk", 0)
    ranks = FakeRanks(device=torch.device(device), local_count=local)
    assert loop._train(of, ranks) is run
    assert made[0][3] == (torch.device(device), {"memory_format": torch.channels_last}) and made[0][-1] == expected
    assert made[1] == "start"
    assert datasets == [
        (1, "coord", 480, {"stride": 8}), (1, "coord", 96, {"stride": 8, "cache_bytes": 3 * 2**29 // local}),
    ]  # fmt: skip
    record.images_per_epoch = 4
    with pytest.raises(ValueError, match="process 0 finds 3 samples in .*scene, the first process found 4: every machine"):
        loop._train(of, ranks)
    with pytest.raises(ValueError, match="--batch_size 1 is of all 2 processes together: at least one image each"):
        loop._train(replace(of, batch_size=1), ranks)
    run.done = True
    assert loop._train(of, ranks) is run and len(made) == 2


def test_a_step_s_figures_and_rates(tmp_path, monkeypatch):
    """The rate of the schedule reaches every group; the log is told what the step took; what is not finite is named."""
    told, losses, pictured = [], iter([2.5, float("nan")]), []
    log = SimpleNamespace(wants_picture=lambda epoch: True, picture=lambda grid, **of: pictured.append(of))
    log.step_done = lambda result, **of: told.append((result.total.item(), of))
    groups, cleared = [{"lr": 0.0}, {"lr": 1.0}], []
    optimizer = SimpleNamespace(param_groups=groups, zero_grad=lambda set_to_none: cleared.append(set_to_none))
    optimizer.step = lambda: None
    of = {"optimizer": optimizer, "record": SimpleNamespace(preprocessing=None), "weights_move": False, "last_step": (0, ())}
    made = trainer(tmp_path, "--lr_schedule", "constant", "-lr", 3e-4, **of)
    made.dataset = type("Samples", (), {"stems": list("abcde"), "stride": 8, "__len__": lambda self: 5})()
    made.lanes = type("Lanes", (), {"__call__": lambda self, images: (images, None), "backward": lambda self: None})()

    def objective(prediction, sigma, batch, images_before):
        told.append(images_before)
        return LossResult(torch.tensor(next(losses), requires_grad=True), torch.tensor(0.5), {})

    made.objective = objective
    monkeypatch.setattr(loop, "prepare_for_training", lambda *of: SimpleNamespace(images_B3HW=torch.zeros(1)))
    monkeypatch.setattr(loop, "draw_augmentation", lambda augmentation, **of: told.append(of))
    monkeypatch.setattr(loop, "picture_grid", lambda *of: None)
    clock = iter([10.0, 10.5, 20.0])
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(clock))
    raw = SimpleNamespace(indices=(3, 6), stems=("s/d", "s/b"), to=lambda device: None)
    made.position = Position(4)
    made._step(raw, [3, 6], 1, log)
    assert told == [
        {"seed": 2021, "epoch": 1, "images_seen": 4, "indices": (3, 6)}, 4,
        (2.5, {"images_before": 4, "stems": ("d", "b"), "epoch": 1, "learning_rate": 3e-4, "seconds": 0.5}),
    ]  # fmt: skip
    assert groups == [{"lr": 3e-4}] * 2 and cleared == [True] and pictured == [{"epoch": 1, "images_seen": 6}]
    assert made.last_step == (4, ("d", "b")) and made.weights_move is False
    with pytest.raises(loop.NotFinite, match="after 4 images, at d, b"):
        made._step(raw, [3, 6], 1, log)


# ---- signals


def test_the_first_signal_asks_and_the_second_stops():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interrupt_flag() as flag:
        assert not flag.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert flag.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 0.1)
    with interrupt_flag(False) as flag:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        assert flag.is_set()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    found = []
    thread = threading.Thread(target=lambda: found.append(interrupt_flag().__enter__().is_set()))
    thread.start()
    thread.join()
    assert found == [False]


@pytest.mark.parametrize("init, ignored", [(loop.ignore_interrupts, [2]), (loop._ignore_signals, [2, 15])])
def test_loaders_leave_signals_to_the_loop(monkeypatch, init, ignored):
    asked = []
    monkeypatch.setattr(loop.signal, "signal", lambda number, handler: asked.append((int(number), handler)))
    init(0)
    assert asked == [(number, signal.SIG_IGN) for number in ignored]


# ---- processes


def test_figures_of_several_processes(monkeypatch):
    """Weighted by the images and by the cells behind them."""
    import training.ranks as ranks_module

    other = torch.tensor([6.0, 0.2, 40.0, 30.0])  # total and valid rate times the share, error times cells, cells
    monkeypatch.setattr(ranks_module.dist, "all_reduce", lambda figures, *of: figures.add_(other))
    two = Ranks(CPU, 1, 2)
    result = LossResult(torch.tensor(4.0), torch.tensor(0.5), {"coord": torch.tensor(2.0)}, {"coord": torch.tensor(10)})
    whole = two.whole(result, 0.25)
    assert (float(whole.total), float(whole.valid_rate)) == (7.0, pytest.approx(0.325))
    assert float(whole.regression["coord"]) == (2 * 10 + 40) / 40
    assert float(two.whole(result, 0.0).regression["coord"]) == pytest.approx(40 / 30)
    assert float(two.weighted(torch.tensor(3.0), 0.25)) == 1.5 and float(Ranks(CPU).weighted(torch.tensor(3.0), 0.25)) == 3.0
    assert Ranks(CPU).whole(result, 0.25) is result
    monkeypatch.setattr(ranks_module.dist, "all_reduce", lambda numbers, how: numbers.copy_(torch.tensor([5, 1])))
    assert two.largest(3, 1) == [5, 1]


def test_the_first_process_decides(monkeypatch):
    import training.ranks as ranks_module

    sent = []

    def broadcast(told, src, device):
        sent.append((list(told), src, device))
        if told == [None]:
            told[0] = answer

    monkeypatch.setattr(ranks_module.dist, "broadcast_object_list", broadcast)
    assert Ranks(CPU, 0, 2).first_decides(lambda: 5) == 5 and sent == [([(5,)], 0, CPU)]
    answer = (7,)
    assert Ranks(CPU, 1, 2).first_decides(lambda: pytest.fail("is the first one's")) == 7
    answer = None
    with pytest.raises(PeerStopped, match="the first process failed"):
        Ranks(CPU, 1, 2).first_decides(lambda: None)
    with pytest.raises(ValueError, match="mine"):
        Ranks(CPU, 0, 2).first_decides(lambda: (_ for _ in ()).throw(ValueError("mine")))


def test_a_gpu_for_each_process(monkeypatch):
    import training.ranks as ranks_module

    taken = []
    monkeypatch.setattr(ranks_module, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for local in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(local))
        assert ranks_module._device_of_process("auto") == torch.device("cuda", local)
    assert taken == [0, 1]


def test_gradients_are_averaged_by_torch(monkeypatch):
    import training.ranks as ranks_module

    monkeypatch.setattr(ranks_module, "DistributedDataParallel", lambda net, **of: (net, of))
    assert Ranks(CPU).parallel("net") == "net"
    assert Ranks(CPU, 0, 2).parallel("net") == ("net", {"device_ids": None, "broadcast_buffers": False})
    cuda = torch.device("cuda", 1)
    assert Ranks(cuda, 0, 2).parallel("net") == ("net", {"device_ids": [cuda], "broadcast_buffers": False})


@pytest.mark.parametrize("device, backend", [("cpu", "gloo"), ("cuda", "cpu:gloo,cuda:nccl")])
def test_joining_and_losing_other_processes(monkeypatch, device, backend):
    import training.ranks as ranks_module

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    asked, stopped = [], [0]

    def add(name, number):
        stopped[0] += number
        return stopped[0]

    store = SimpleNamespace(add=add)
    monkeypatch.setattr(ranks_module.dist, "rendezvous", lambda url: iter([(store, 1, 3)]))
    monkeypatch.setattr(ranks_module.dist, "PrefixStore", lambda name, store: name)
    monkeypatch.setattr(ranks_module.dist, "init_process_group", lambda *of, **more: asked.append((of, more)))
    monkeypatch.setattr(ranks_module.dist, "destroy_process_group", lambda: asked.append("destroyed"))
    monkeypatch.setattr(ranks_module, "_device_of_process", lambda name: torch.device(device))
    with processes_of_the_run("auto") as ranks:
        assert (ranks.number, ranks.count, ranks.local_count, ranks.first) == (1, 3, 2, False)
    assert asked == [((backend,), {"store": "run", "rank": 1, "world_size": 3}), "destroyed"]
    lost = "[/a/pair.cc:553] Connection closed by peer [127.0.0.1]:1. Try something else\nmore of gloo"
    told = r"^process 1 of 3 lost another one \(Connection closed by peer "
    with pytest.raises(ConnectionError, match=told), processes_of_the_run("auto"):
        raise RuntimeError(lost)
    with pytest.raises(PeerStopped, match="mine"), processes_of_the_run("auto"):
        raise ValueError("mine")  # another one had said it before
    stopped[0] = 0
    with pytest.raises(ValueError, match="mine"), processes_of_the_run("auto"):
        raise ValueError("mine")
    with pytest.raises(PeerStopped, match="theirs"), processes_of_the_run("auto"):
        raise PeerStopped("theirs")
    assert asked.count("destroyed") == 1 and stopped[0] == 1


# ---- the command


@pytest.mark.parametrize(
    "raised, status, said",
    [
        (None, 0, ""), (TrainingInterrupted("stopped"), 130, "stopped\n"), (ValueError("bad"), 2, "error: bad\n"),
        (OSError("full"), 2, "error: full\n"), (FloatingPointError("nan"), 2, "error: nan\n"),
        (RuntimeError("CUDA out of memory"), 2, "error: out of memory (CUDA out of memory): start again with a "
         "smaller --batch_size or --image_height and another --session\n"),
        (MemoryError("no room"), 2, None),
        (RuntimeError("DataLoader worker (pid 1) is killed"), 2, "error: DataLoader worker (pid 1) is killed The state is "
         "saved: continue with --auto_resume, with fewer --num_workers if memory was short\n"),
        (PeerStopped("theirs"), 2, ""),
    ],
)  # fmt: skip
def test_exit_status_and_what_is_said(monkeypatch, capsys, raised, status, said):
    def train(options):
        if raised is not None:
            raise raised
        return SimpleNamespace(checkpoints="folder")

    monkeypatch.setattr(command_module, "train", train)
    monkeypatch.setattr(sys, "argv", ["command"])
    assert command_module.run_command(None, lambda parser: None, lambda args: args) == status
    out, err = capsys.readouterr()
    assert out == ("weights: folder\n" if status == 0 else "") and (said is None or err == said)
    monkeypatch.setenv("RANK", "1")
    assert command_module.run_command(None, lambda parser: None, lambda args: args) == status
    assert capsys.readouterr().out == ""


def test_an_interruption_of_another_process_is_one(monkeypatch):
    def train(options):
        raise PeerStopped("theirs") from TrainingInterrupted("there")

    monkeypatch.setattr(command_module, "train", train)
    monkeypatch.setattr(sys, "argv", ["command"])
    assert command_module.run_command(None, lambda parser: None, lambda args: args) == 130


# ---- records and folders


def made_options(cls=TrainingOptions, **of):
    values = {"scene": "town", "task": "coord", "lr_schedule": "step", **of}
    return cls(**values)


def test_the_record_of_what_options_ask_for(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "section_record", lambda folder, label, count: SectionRecord(folder.name, count, label))
    monkeypatch.setattr(identity, "software_versions", lambda: {})
    monkeypatch.setattr(identity, "statistics_of", lambda scene, sections: PUBLISHED_SCENES["urbanscape"])
    monkeypatch.setattr(identity, "cameras_of", lambda dataset: CameraRecord(1.0, 2.0, 3.0, 4.0))
    monkeypatch.setattr(identity, "frame_of", lambda folder: None)
    monkeypatch.setattr(identity, "preprocessing_for", lambda path, **of: Preprocessing(of["image_height"] or 64))
    monkeypatch.setattr(identity, "parent_record", lambda flag, path: f"{flag} {path.name}")
    monkeypatch.setattr(identity, "record_of", lambda path: None)
    dataset = type("Samples", (), {"section_of": ["a", "b", "b"], "__len__": lambda self: 3})()
    weights = tmp_path / "model-sc-0.25.net"
    weights.touch()
    chosen = {
        "synthetic": dict(real_data_chunk=0.0, real_only=True, real_data_domain="out_of_place", image_height=96),
        "grey": dict(real_data_chunk=0.0, grayscale=True, tiny=True),
        "pairs": dict(sim_data_chunk=0.5), "real": dict(real_only=True, real_data_domain="out_of_place", network_in=weights),
    }  # fmt: skip
    records = {}
    for name, of in chosen.items():
        record = identity.build_record(made_options(**of), [tmp_path / "a", tmp_path / "b"], dataset, None)
        records[name] = {**vars(record), "options": {k: v for k, v in record.options.items() if "dir" not in k}}
    assert_kept("run-records", plain(records), exact=True)
    with pytest.raises(FileNotFoundError, match="--network_in: weights file not found: none.net"):
        identity.build_record(made_options(network_in=tmp_path.__class__("none.net")), [], dataset, None)
    before = replace(record, statistics=PUBLISHED_SCENES["naturescape"], cameras=None)
    of = made_options(sim_data_chunk=0.5)
    again = identity.build_record(of, [tmp_path / "a", tmp_path / "b"], dataset, before)
    assert again.statistics is before.statistics and again.cameras is None  # nothing is measured again
    other = identity.build_record(of, [tmp_path / "a"], dataset, before)
    assert other.statistics is not before.statistics and other.cameras is not None


def test_colours_that_contradict_each_other(tmp_path, monkeypatch):
    def colours(path, **of):
        return Preprocessing(64, False, (0.1, 0.2, 0.3), (0.1,) * 3 if "depth" in path.name else (0.2,) * 3)

    monkeypatch.setattr(identity, "preprocessing_for", colours)
    paths = {f"{task}_weight": tmp_path / f"{task}.net" for task in ("coord", "depth", "normal", "semantics")}
    decoder = made_options(DecoderOptions, **paths)
    with pytest.raises(ValueError, match="of --coord_weight and --depth_weight were trained on differently normalised"):
        identity._preprocessing(decoder, PUBLISHED_SCENES["urbanscape"])
    same = replace(decoder, encoders=("coord", "normal"))
    assert identity._preprocessing(same, PUBLISHED_SCENES["urbanscape"]).rgb_std == (0.2,) * 3


def test_cameras_of_evenly_spread_samples():
    class Samples(list):
        def __getitem__(self, index):
            asked.append(index)
            K_33 = torch.eye(3) * (100 + index)
            return SimpleNamespace(view=SimpleNamespace(K_33=K_33, image_HW3=SimpleNamespace(shape=(50, 80 + index, 3))))

    asked = []
    assert identity.cameras_of(Samples(range(47))) == CameraRecord(2.0, 146 / 50, 1.6, 126 / 50)
    assert asked == list(range(0, 47, 2))


def test_where_a_network_with_frozen_parts_is_fused():
    paths = {f"{task}_weight": "w.net" for task in ("coord", "depth", "normal", "semantics")}
    of = made_options(DecoderOptions, **paths)
    assert (of.fused, of.frozen, of.stage) == (("depth", "normal"), (1, 2), "decoder")
    of = replace(of, reuse_coord_encoder=True)
    assert (of.fused, of.frozen) == (("coord", "depth", "normal"), (1, 2, 3))
    of = replace(of, unfreeze_coord_encoder=True)
    assert of.frozen == (2, 3) and of.architecture == Architecture.for_task("coord", uncertainty="none", num_encoders=3)
    assert list(of.starting_weights) == ["--coord_weight", "--depth_weight", "--normal_weight"]
    assert made_options(RefinementOptions, network_in="w.net").stage == "e2e"


@pytest.mark.parametrize(
    "checkpoints, latest, log, expected",
    [
        ((), None, None, (None, 0)), ((2, 8), None, None, ("ckpt_iter_0000008.net", 8)),
        ((2, 8), "model.net", 8, ("ckpt_iter_0000008.net", 8)), ((2, 8), "model.net", 9, ("model.net", 9)),
        ((2, 8), None, 9, ("ckpt_iter_0000008.net", 8)), ((), "model_resume.net", 3, ("model_resume.net", 3)),
        ((), "model.net", None, (None, 0)), ((2,), "model.net", None, ("ckpt_iter_0000002.net", 2)),
    ],
)  # fmt: skip
def test_the_newest_weights_of_a_published_run(tmp_path, monkeypatch, checkpoints, latest, log, expected):
    import training.run_folder as run_folder

    monkeypatch.setattr(run_folder, "load_state_dict", lambda path: path.name)
    run = RunFolder(tmp_path, tmp_path)
    for iteration in checkpoints:
        (tmp_path / f"ckpt_iter_{iteration:07d}.net").touch()
    (tmp_path / "ckpt_iter_x.net").touch()
    if latest is not None:
        (tmp_path / latest).touch()
    if log is not None:
        (tmp_path / "output.log").write_text(f"Iteration:      1, Epoch\nIteration:      {log}, Epoch\n")
    start = run_folder._weights_only(run)
    assert (start.weights, start.images_seen) == expected


def test_names_of_the_latest_weights(tmp_path, monkeypatch):
    import training.run_folder as run_folder

    monkeypatch.setattr(run_folder, "load_state_dict", lambda path: {})
    run = RunFolder(tmp_path / "out" / "r", tmp_path / "ckpt" / "r")
    assert run.both == [run.checkpoints, run.output] and RunFolder(run.output, run.output).both == [run.output]
    record = SimpleNamespace(name="r")
    for of, name in ((dict(), "model.net"), (dict(network_in="w.net"), "model_resume.net")):
        assert choose_start(made_options(**of), run, record)[0].latest_name == name
    run.checkpoints.mkdir(parents=True)
    (run.checkpoints / ".lock").touch()
    assert not run.exists
    (run.checkpoints / "ckpt_iter_0000004.net").touch()
    assert run.exists and not run.done
    found, start = choose_start(made_options(auto_resume=True), run, record)
    assert (found.latest_name, start.images_seen, start.logs_from) == ("model_auto_resume.net", 4, None)
    with pytest.raises(FileExistsError, match=r"run r exists already in .*ckpt/r: nothing to extend, use --auto_resume"):
        choose_start(made_options(epoch_plus=True), run, record)
    run.output.mkdir(parents=True)
    run.mark_done()
    assert run.done and (run.output / "FLAG_training_done.nodata").exists()


def test_folders_of_a_run_that_never_came_to_be_are_gone(tmp_path):
    run = RunFolder(tmp_path / "a" / "b" / "r", tmp_path / "c" / "r")
    with run.held():
        assert run.output.is_dir() and run.checkpoints.is_dir()
    assert list(tmp_path.iterdir()) == []
    with run.held():
        (run.output / "kept").touch()
    assert (run.output / "kept").exists() and run.checkpoints.is_dir()


def test_a_range_of_iterations_is_exclusive(tmp_path):
    path = tmp_path / "ckpt_iter_0000004.net"
    assert [IterationRange(*ends).accepts(path) for ends in ((4, None), (3, None), (None, 4), (None, 5), (3, 5))] == [
        False, True, False, True, True,
    ]  # fmt: skip
    assert IterationRange().accepts(tmp_path / "model.net") and not IterationRange(low=0).accepts(tmp_path / "model.net")
    assert str(IterationRange(4, 1e6)) == "beyond 4 and before 1e+06" and str(IterationRange()) == "of any iteration"
