"""What a network is made of, and how to read that from its weights alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tasks import TASKS, UNCERTAINTIES

_FULL_WIDTHS = (256, 512)
_TINY_WIDTHS = (128, 128)


@dataclass(frozen=True)
class Architecture:
    """Everything that decides the names and shapes of the weights.

    Attributes:
        task_channels: output channels of the task (coord 3, depth 1, normal 2, semantics 6).
        uncertainty: 'mle' adds one positive channel, 'none' adds none.
        tiny: 128 channels throughout instead of 256 and 512.
        fullsize: the prediction has the image's size instead of the stride-8 grid's.
        in_channels: 3 for RGB, 1 for grey images.
        num_encoders: `mlr_encoder_*` branches of a fused network; 0 for the single-task network.
    """

    task_channels: int = 3
    uncertainty: str = "mle"
    tiny: bool = False
    fullsize: bool = False
    in_channels: int = 3
    num_encoders: int = 0

    def __post_init__(self) -> None:
        known_channels = sorted(task.channels for task in TASKS.values())
        if self.task_channels not in known_channels:
            raise ValueError(f"{self.task_channels} task channels belong to no task; choose from {known_channels}")
        if self.uncertainty not in UNCERTAINTIES:
            raise ValueError(f"unknown uncertainty {self.uncertainty!r}; choose from {list(UNCERTAINTIES)}")
        if self.in_channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, not {self.in_channels}")
        if self.num_encoders < 0:
            raise ValueError(f"the number of encoders cannot be {self.num_encoders}")

    @classmethod
    def for_task(cls, task: str, **fields) -> Architecture:
        """The architecture of a task by name; `fields` are the other attributes."""
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}; choose from {sorted(TASKS)}")
        return cls(task_channels=TASKS[task].channels, **fields)

    @property
    def task(self) -> str:
        """Name of the task, which its channels identify."""
        return next(name for name, task in TASKS.items() if task.channels == self.task_channels)

    @property
    def uncertainty_channels(self) -> int:
        return int(self.uncertainty == "mle")

    @property
    def out_channels(self) -> int:
        return self.task_channels + self.uncertainty_channels

    @property
    def widths(self) -> tuple[int, int]:
        """Channels (C4, C) after conv4 and of the features."""
        return _TINY_WIDTHS if self.tiny else _FULL_WIDTHS


def architecture_of(state_dict: Mapping[str, torch.Tensor]) -> Architecture:
    """Reads the architecture from the names and shapes of a state dict.

    Raises:
        ValueError: a tensor that every network of this family has is absent or has an impossible shape.
    """
    mean = _entry(state_dict, "mean", 1)
    fc1 = _entry(state_dict, "decoder.fc1.weight", 4)
    fc3 = _entry(state_dict, "decoder.fc3.weight", 4)
    branches = {int(match[1]) for key in state_dict if (match := re.match(r"mlr_encoder_(\d+)\.", key))}
    if branches and branches != set(range(1, len(branches) + 1)):
        raise ValueError(f"encoder branches {sorted(branches)} are not numbered 1, 2, ...")
    conv1 = _entry(state_dict, "mlr_encoder_1.conv1.weight" if branches else "encoder.conv1.weight", 4)

    task_channels = mean.shape[0]
    extra_rows = fc3.shape[0] - task_channels
    if extra_rows not in (0, 1):
        raise ValueError(
            f"'decoder.fc3.weight' has {fc3.shape[0]} rows for {task_channels} task channels; expected that or one more"
        )
    width_of_tiny = {_TINY_WIDTHS[1]: True, _FULL_WIDTHS[1]: False}
    if fc1.shape[0] not in width_of_tiny:
        raise ValueError(f"'decoder.fc1.weight' has {fc1.shape[0]} channels; expected one of {sorted(width_of_tiny)}")
    return Architecture(
        task_channels=task_channels,
        uncertainty="mle" if extra_rows else "none",
        tiny=width_of_tiny[fc1.shape[0]],
        fullsize="decoder.duc_upsample.conv.weight" in state_dict,
        in_channels=conv1.shape[1],
        num_encoders=len(branches),
    )


def _entry(state_dict: Mapping[str, torch.Tensor], key: str, ndim: int) -> torch.Tensor:
    if key not in state_dict:
        raise ValueError(f"{key!r} is absent: these are not the weights of a TransPoseNet")
    if state_dict[key].ndim != ndim:
        raise ValueError(f"{key!r} has shape {tuple(state_dict[key].shape)}; expected {ndim} dimensions")
    return state_dict[key]
