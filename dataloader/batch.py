"""What the loss and the evaluation receive."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Batch:
    """Images with labels, all on one device.

    Attributes:
        images_B3HW: float32, normalised (one channel in place of three for grey input).
        labels_BChw: float32 labels of the task; int64 [B, H, W] class indices for semantics. Metres for coord and depth.
        valid_B1hw: bool, True where the label may be used; label values elsewhere mean nothing.
        world_from_cam_B44: float32 camera-to-world poses, metres.
        K_B33: float32 intrinsics of `images_B3HW`, pixels.
        stems: names of the samples, `section/stem`.
    """

    images_B3HW: torch.Tensor
    labels_BChw: torch.Tensor
    valid_B1hw: torch.Tensor
    world_from_cam_B44: torch.Tensor
    K_B33: torch.Tensor
    stems: tuple[str, ...]

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("images_B3HW", "labels_BChw", "valid_B1hw", "world_from_cam_B44", "K_B33")
        }
        return replace(self, **moved)
