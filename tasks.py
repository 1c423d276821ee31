"""The four regression tasks: the one table that says what a task is.

Source: CrossLoc, CVPR 2022; channel layout and file formats as in the prepared data sets.
"""

from __future__ import annotations

from dataclasses import dataclass

from geometry.grid import FULL_SIZE_STRIDE, STRIDE


@dataclass(frozen=True)
class Task:
    """What distinguishes one task from another.

    Attributes:
        channels: network output channels before the uncertainty channel.
        label_folder: folder of the labels inside a section.
        label_suffix: file name ending of the labels.
        label_channels: channels of the label files (0: a plain map without a channel axis).
        uncertainties: the uncertainty models that the task supports.
        fullsize_only: the label is a full-size map and the network must predict one.
        classes: the label is a map of class indices.
        checkpoint_every_epochs: how often a numbered checkpoint is kept.
    """

    channels: int
    label_folder: str
    label_suffix: str
    label_channels: int
    uncertainties: tuple[str, ...] = ("mle", "none")
    fullsize_only: bool = False
    classes: bool = False
    checkpoint_every_epochs: int = 5

    def stride(self, fullsize: bool) -> int:
        """Pixels per cell of what a network of the task predicts."""
        return FULL_SIZE_STRIDE if fullsize or self.fullsize_only else STRIDE


TASKS: dict[str, Task] = {
    "coord": Task(3, "init", ".dat", 3),
    "depth": Task(1, "depth", ".dat", 0),
    "normal": Task(2, "normal", ".dat", 3),
    "semantics": Task(
        6, "semantics", ".npy", 0, uncertainties=("none",), fullsize_only=True, classes=True, checkpoint_every_epochs=1
    ),
}

UNCERTAINTIES = ("none", "mle")

# LAS class code in the files -> class index of the network (sky, ground, low vegetation, buildings, water, bridge).
LAS_CODE_TO_CLASS: dict[int, int] = {0: 0, 1: 1, 2: 1, 3: 2, 6: 3, 9: 4, 17: 5}
CLASS_NAMES = ("sky", "ground", "vegetation", "building", "water", "bridge")


def task_named(name: str) -> Task:
    """Returns the task called `name`; raises ValueError naming the choices."""
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; choose from {sorted(TASKS)}")
    return TASKS[name]
