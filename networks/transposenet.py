"""TransPoseNet: one encoder, one decoder, one task.

Source: CrossLoc, CVPR 2022, arXiv 2112.09081; the layers it builds on: DSAC*, TPAMI 2021, arXiv 2002.12324.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from networks.architecture import Architecture, architecture_of
from networks.decoder import Decoder
from networks.encoder import Encoder


class TransPoseNet(nn.Module):
    """Images to a dense prediction with, on request, its standard deviation.

    Args:
        architecture: see `Architecture`.
        mean: what the decoder adds to its output, one value per task channel (default: zeros).
    """

    def __init__(self, architecture: Architecture, mean: torch.Tensor | None = None):
        super().__init__()
        if architecture.num_encoders:
            raise ValueError(f"this is a fused network of {architecture.num_encoders} encoders, not a single-task one")
        mean = torch.zeros(architecture.task_channels) if mean is None else torch.as_tensor(mean, dtype=torch.float32)
        if mean.shape != (architecture.task_channels,) or not torch.isfinite(mean).all():
            raise ValueError(
                f"the mean must be {architecture.task_channels} finite numbers for task {architecture.task!r}, got {mean}"
            )
        self.architecture = architecture
        self.register_buffer("mean", mean.clone())
        self.encoder = Encoder(architecture.in_channels, architecture.widths)
        self.decoder = Decoder(architecture, mean)

    @property
    def head_scale(self) -> float:
        """Units of fc3's task rows: prediction = head_scale * fc3(x) + mean. Not part of the state dict."""
        return self.decoder.head_scale

    @head_scale.setter
    def head_scale(self, scale: float) -> None:
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"the head scale must be a positive number, got {scale}")
        self.decoder.head_scale = float(scale)

    def forward(self, images_BcHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Predicts on the stride-8 grid, or at image size for a full-size network.

        Args:
            images_BcHW: normalised images.
        Returns:
            (prediction [B, task, h, w], standard deviation [B, 1, h, w] or None), float32.
        """
        if images_BcHW.shape[1] != self.architecture.in_channels:
            raise ValueError(
                f"the network takes images of {self.architecture.in_channels} channels, got {tuple(images_BcHW.shape)}"
            )
        # Convolutions are several times faster in this layout, on CPUs and GPUs alike.
        images_BcHW = images_BcHW.contiguous(memory_format=torch.channels_last)
        return self.decoder(self.encoder(images_BcHW), tuple(images_BcHW.shape[-2:]))

    @torch.no_grad()
    def init_head(self, spread: float) -> None:
        """Lets a fresh head start at the scene's size: task rows in units of `spread`, uncertainty around it.

        Args:
            spread: typical distance of the labels from `mean`, in the task's unit.
        """
        self.head_scale = spread
        if self.architecture.uncertainty == "mle":
            self.decoder.fc3.bias[-1] = math.log(spread)

    def published_state_dict(self) -> dict[str, torch.Tensor]:
        """Weights as files hold them, on the CPU: the head scale is folded into fc3's task rows."""
        state_dict = {
            key: value.detach().to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)
            for key, value in self.state_dict().items()
        }
        _scale_head(state_dict, self.architecture.task_channels, self.head_scale)
        return state_dict

    def load_published(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """Loads weights as files hold them, keeping this network's head scale.

        Raises:
            ValueError: the weights belong to another architecture; names what differs.
        """
        found = architecture_of(state_dict)
        if found != self.architecture:
            raise ValueError(f"the weights are of {found}, the network is {self.architecture}")
        expected = self.state_dict()
        missing, foreign = sorted(expected.keys() - state_dict.keys()), sorted(state_dict.keys() - expected.keys())
        if missing or foreign:
            raise ValueError(f"not the weights of a TransPoseNet: missing {missing[:5]}, foreign {foreign[:5]}")
        misshapen = [key for key in expected if expected[key].shape != state_dict[key].shape]
        if misshapen:
            key = misshapen[0]
            raise ValueError(f"{key!r} has shape {tuple(state_dict[key].shape)}, expected {tuple(expected[key].shape)}")
        scaled = dict(state_dict)
        _scale_head(scaled, self.architecture.task_channels, 1.0 / self.head_scale)
        self.load_state_dict(scaled)


def _scale_head(state_dict: dict[str, torch.Tensor], task_channels: int, scale: float) -> None:
    """Replaces fc3's task rows by `scale` times themselves."""
    for key in ("decoder.fc3.weight", "decoder.fc3.bias"):
        rows = state_dict[key].clone()
        rows[:task_channels] *= scale
        state_dict[key] = rows
