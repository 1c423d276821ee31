"""TransPoseNet: one encoder, one decoder, one task; and what it shares with the fused network.

Source: CrossLoc, CVPR 2022, arXiv 2112.09081; the layers it builds on: DSAC*, TPAMI 2021, arXiv 2002.12324.
"""

from __future__ import annotations

import torch
from torch import nn

from networks.architecture import Architecture
from networks.decoder import Decoder
from networks.encoder import Encoder


class DenseNetwork(nn.Module):
    """An encoder side and a decoder: images to a dense prediction with, on request, its standard deviation.

    Subclasses add the encoders, `features` and, after them, `decoder`.

    Args:
        architecture: see `Architecture`.
        mean: what the decoder adds to its output, one value per task channel (default: zeros).
    """

    decoder: Decoder

    def __init__(self, architecture: Architecture, mean: torch.Tensor | None = None):
        super().__init__()
        self.architecture = architecture
        self.register_buffer("mean", _checked_mean(architecture, mean))

    @property
    def encoders(self) -> tuple[Encoder, ...]:
        raise NotImplementedError

    def features(self, images_BcHW: torch.Tensor) -> torch.Tensor:
        """What the decoder reads: [B, C, h, w] with h = ceil(H / 8), w = ceil(W / 8), not negative."""
        raise NotImplementedError

    def forward(self, images_BcHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Predicts on the stride-8 grid, or at image size for a full-size network.

        Args:
            images_BcHW: normalised images.
        Returns:
            (prediction [B, task, h, w], standard deviation [B, 1, h, w] or None), float32.
        Raises:
            ValueError: the images have another number of channels than the network takes.
        """
        if images_BcHW.shape[1] != self.architecture.in_channels:
            raise ValueError(
                f"the network takes images of {self.architecture.in_channels} channels, got {tuple(images_BcHW.shape)}"
            )
        # Convolutions are several times faster in this layout, on CPUs and GPUs alike.
        images_BcHW = images_BcHW.contiguous(memory_format=torch.channels_last)
        return self.decoder(self.features(images_BcHW), tuple(images_BcHW.shape[-2:]))


class TransPoseNet(DenseNetwork):
    """The single-task network."""

    def __init__(self, architecture: Architecture, mean: torch.Tensor | None = None):
        if architecture.num_encoders:
            raise ValueError(f"this is a fused network of {architecture.num_encoders} encoders, not a single-task one")
        super().__init__(architecture, mean)
        self.encoder = Encoder(architecture.in_channels, architecture.widths)
        self.decoder = Decoder(architecture, self.mean)

    @property
    def encoders(self) -> tuple[Encoder, ...]:
        return (self.encoder,)

    def features(self, images_BcHW: torch.Tensor) -> torch.Tensor:
        return self.encoder(images_BcHW)


def _checked_mean(architecture: Architecture, mean: torch.Tensor | None) -> torch.Tensor:
    if mean is None:
        return torch.zeros(architecture.task_channels)
    mean = torch.as_tensor(mean, dtype=torch.float32)
    if mean.shape != (architecture.task_channels,) or not torch.isfinite(mean).all():
        raise ValueError(
            f"the mean must be {architecture.task_channels} finite numbers for task {architecture.task!r}, got {mean}"
        )
    return mean.clone()
