"""What a network is made of, and how to read that from its weights alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

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
        task = TASKS[self.task]
        if self.uncertainty not in task.uncertainties:
            raise ValueError(
                f"{self.task} networks have no uncertainty {self.uncertainty!r}; choose from {list(task.uncertainties)}"
            )
        if task.fullsize_only and not self.fullsize:
            raise ValueError(f"{self.task} networks predict at image size: fullsize is needed")
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

    def contradiction(self, other: Architecture, *fields: str) -> str:
        """Where this architecture is not the other one, as words; empty when they agree.

        Args:
            fields: what to look at (default: everything).
        """
        fields = fields or tuple(asdict(self))
        differing = [name for name in fields if getattr(self, name) != getattr(other, name)]
        return ", ".join(f"{name}={getattr(self, name)!r} instead of {getattr(other, name)!r}" for name in differing)

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
        ValueError: a tensor that every network of this family has is absent or has an impossible shape; says what the
            weights seem to be instead.
    """
    _refuse_relatives(state_dict)
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


def check_entries(state_dict: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Raises ValueError unless the tensors are the expected ones by name and shape; says what differs."""
    missing, foreign = sorted(shapes.keys() - state_dict.keys()), sorted(state_dict.keys() - shapes.keys())
    if missing or foreign:
        raise ValueError(
            f"not the weights of a TransPoseNet: of {len(shapes)} expected tensors {len(missing)} are missing "
            f"{_some(missing)}, {len(foreign)} are foreign {_some(foreign)}"
        )
    for key, shape in shapes.items():
        if state_dict[key].shape != shape:
            raise ValueError(f"{key!r} has shape {tuple(state_dict[key].shape)}, expected {tuple(shape)}")


def _refuse_relatives(state_dict: Mapping[str, torch.Tensor]) -> None:
    """Names what people mistake for weights of this family: DSAC* networks, and networks saved inside a wrapper."""
    if {"conv1.weight", "res3_conv1.weight", "fc3.weight"} <= state_dict.keys():
        raise ValueError(
            "these are the weights of the original DSAC* Network (grey images, no norms), which this project does not "
            "run; expected those of a TransPoseNet"
        )
    for prefix in ("module.", "_orig_mod."):
        if state_dict and all(key.startswith(prefix) for key in state_dict):
            raise ValueError(
                f"all names begin with {prefix!r}: these are the weights of a wrapped network; save the network inside"
            )


def _entry(state_dict: Mapping[str, torch.Tensor], key: str, ndim: int) -> torch.Tensor:
    if key not in state_dict:
        raise ValueError(
            f"{key!r} is absent: these are not the weights of a TransPoseNet; "
            f"found {len(state_dict)} tensors {_some(sorted(state_dict))}"
        )
    if state_dict[key].ndim != ndim:
        raise ValueError(f"{key!r} has shape {tuple(state_dict[key].shape)}; expected {ndim} dimensions")
    return state_dict[key]


def _some(names: list[str]) -> str:
    return f"({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})" if names else "(none)"
