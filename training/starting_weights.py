"""The network that a run starts with: fresh, from weights, or put together from the encoders of several tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dataloader.scenes import SceneStatistics
from networks import (
    DenseNetwork,
    architecture_of,
    build,
    freeze_encoders,
    init_decoder_from,
    init_head,
    load_encoder,
    load_published,
    load_state_dict,
)
from runs.record import RunRecord
from tasks import TASKS
from training.options import DecoderOptions, RefinementOptions, TrainingOptions


def initial_mean(task: str, statistics: SceneStatistics) -> torch.Tensor:
    """What the decoder adds to its output: the scene's mean label in the network's output units."""
    share_2 = (torch.tensor(statistics.mean_normal) / torch.pi + 1) / 2
    means = {
        "coord": torch.tensor(statistics.mean_coord),
        "depth": torch.tensor([statistics.mean_depth]),
        "normal": torch.log(share_2 / (1 - share_2 + 1e-7)),
    }
    return means[task] if task in means else torch.zeros(TASKS[task].channels)


def head_spread(task: str, statistics: SceneStatistics) -> float:
    """Units in which the last layer trains: the spread of the labels."""
    return {"coord": statistics.coord_spread, "depth": statistics.depth_spread}.get(task, 1.0)


def build_network(options: TrainingOptions, record: RunRecord) -> DenseNetwork:
    """The network of a run before its first step.

    Raises:
        FileNotFoundError, ValueError: weights are absent, damaged or contradict a flag; names the file.
    """
    torch.manual_seed(options.seed)
    net = build(record.architecture, initial_mean(options.task, record.statistics))
    init_head(net, head_spread(options.task, record.statistics))
    if options.network_in is not None:
        with _naming(options.network_in):
            load_published(net, load_state_dict(options.network_in))
    elif isinstance(options, DecoderOptions):
        _put_together(net, options)
    if isinstance(options, DecoderOptions) and options.fused:
        freeze_encoders(net, options.frozen)
    if isinstance(options, RefinementOptions) and options.freeze_encoders:
        freeze_encoders(net, range(1, len(net.encoders) + 1))
    return net


def _put_together(net: DenseNetwork, options: DecoderOptions) -> None:
    """The decoder of the coord weights behind the encoders of all tasks."""
    for task in options.encoders:
        path = options.weight_of(task)
        with _naming(path):
            state_dict = load_state_dict(path)
            found = architecture_of(state_dict).task
            if found != task:
                raise ValueError(f"--{task}_weight names a network for the task {found}")
            if task == "coord":
                init_decoder_from(net, state_dict)
            if task in options.fused:
                load_encoder(net, options.fused.index(task) + 1, state_dict)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file before a message that does not name it."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        raise ValueError(text if str(path) in text else f"{path}: {text}") from None
