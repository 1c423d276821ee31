"""What networks, losses and evaluation receive: views of photos, and batches, which are views with labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

import torch

from geometry.grid import STRIDE

V = TypeVar("V", bound="Views")


def transferred(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A small tensor of the CPU on a device; a GPU takes it from pinned memory, so that nobody waits."""
    device = torch.device(device)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True)
class Views:
    """What photos give, all on one device.

    Attributes:
        images_B3HW: float32, normalised (one channel in place of three for grey input).
        K_B33: float32 intrinsics of `images_B3HW`, pixels; NaN where a photo came without.
        stems: names of the photos, `section/stem`.
    """

    images_B3HW: torch.Tensor
    K_B33: torch.Tensor
    stems: tuple[str, ...]

    def to(self: V, device: torch.device | str) -> V:
        """The same on another device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return dataclasses.replace(self, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()})


@dataclass(frozen=True)
class Batch(Views):
    """Views with what labels add.

    Attributes:
        labels_BChw: float32 labels of the task; int64 [B, H, W] class indices for semantics. Metres for coord and depth.
        valid_B1hw: bool, True where the label may be used; label values elsewhere mean nothing.
        world_from_cam_B44: float32 camera-to-world poses, metres.
        stride: pixels per cell of the labels, 8 or 1; cell (i, j) looks through ((j + 1/2) stride, (i + 1/2) stride).
    """

    labels_BChw: torch.Tensor
    valid_B1hw: torch.Tensor
    world_from_cam_B44: torch.Tensor
    stride: int = STRIDE
