"""The exact state of a training, between two of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from networks import head_scale_of, set_head_scale
from records.tensors import load_tensors, save_tensors
from runs.record import RunRecord

STATE_VERSION = 3


@dataclass(frozen=True)
class Position:
    """Where a run stands: always between two optimizer steps.

    Attributes:
        images_seen: images that steps have used, those of passed-over steps among them.
        passed_over: positions of the steps that were left out because their loss was not finite.
        failures: how often the run has gone back to an earlier state for that reason.
        log_bytes: sizes of the run's logs at this position, by file name.
    """

    images_seen: int = 0
    passed_over: tuple[int, ...] = ()
    failures: int = 0
    log_bytes: Mapping[str, int] = field(default_factory=dict)


def save_state(
    path: Path, record: RunRecord, net: nn.Module, optimizer: torch.optim.Optimizer, position: Position, *, parts: int
) -> None:
    """Saves everything that the rest of the run depends on, atomically.

    The order of samples, the augmentation and the learning rate are pure functions of seed and position, so the images
    seen stand for their state; torch's generators are kept besides.

    Args:
        parts: into how many parts a batch is split (see `networks.lanes`).
    Raises:
        OSError: the file cannot be written; the state before it is still there.
    """
    save_contents(path, record, position, {
        "network": net.state_dict(),
        "head_scale": head_scale_of(net),
        "optimizer": optimizer.state_dict(),
        "parts": parts,
    })  # fmt: skip


def save_contents(path: Path, record: RunRecord, position: Position, contents: Mapping[str, Any]) -> None:
    """Saves what every kind of training keeps, with the contents of this one: tensors and plain containers by name.

    Raises:
        OSError: the file cannot be written; the state before it is still there.
    """
    save_tensors(path, {
        "version": STATE_VERSION,
        "record": record.to_json(),
        **contents,
        "images_seen": position.images_seen,
        # For whoever looks into the file; the images alone decide.
        "epoch": position.images_seen // record.images_per_epoch,
        "batch": position.images_seen % record.images_per_epoch // record.options["batch_size"],
        "passed_over": list(position.passed_over),
        "failures": position.failures,
        "log_bytes": dict(position.log_bytes),
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    })  # fmt: skip


def load_state(path: Path) -> dict[str, Any]:
    """Reads a training state; ValueError naming the file when it is damaged or of another version."""
    state = load_tensors(path, "training state")
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise ValueError(f"training state {path} is of another version; delete it to restart from the last checkpoint")
    return state


def record_in(state: dict[str, Any], path: Path) -> RunRecord:
    """The record that a state was saved with."""
    return RunRecord.from_json(state["record"], f"the record in {path}")


def position_in(state: dict[str, Any]) -> Position:
    return Position(state["images_seen"], tuple(state["passed_over"]), state["failures"], state["log_bytes"])


def restore(state: dict[str, Any], net: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    """Puts a saved state into network, optimizer and random generators; returns its position."""
    set_head_scale(net, state["head_scale"])
    net.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return restore_position(state)


def restore_position(state: dict[str, Any]) -> Position:
    """Puts a saved state into the random generators; returns its position."""
    torch.set_rng_state(state["torch_rng"])
    if state["cuda_rng"] and torch.cuda.device_count() == len(state["cuda_rng"]):
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    return position_in(state)
