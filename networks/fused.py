"""The fused network: the encoders of several tasks, merged, before one decoder.

Source: CrossLoc, CVPR 2022, arXiv 2112.09081.
"""

from __future__ import annotations

import torch
from torch import nn

from networks.architecture import Architecture
from networks.decoder import Decoder
from networks.encoder import GROUPS, ConvStack, Encoder, conv
from networks.group_norm import group_norm
from networks.transposenet import DenseNetwork


class FusedTransPoseNet(DenseNetwork):
    """`num_encoders` encoders (`mlr_encoder_1`, ...) read the same images; their features are merged for the decoder.

    Autograd records nothing of an encoder whose parameters take no gradients (`freeze_encoders`): it costs no gradient
    memory and no backward time.
    """

    def __init__(self, architecture: Architecture, mean: torch.Tensor | None = None):
        if not architecture.num_encoders:
            raise ValueError("a fused network has at least one encoder; the architecture is that of a single-task one")
        super().__init__(architecture, mean)
        C = architecture.widths[1]
        merged = architecture.num_encoders * C
        for index in range(1, architecture.num_encoders + 1):
            self.add_module(f"mlr_encoder_{index}", Encoder(architecture.in_channels, architecture.widths))
        self.mlr_norm = nn.GroupNorm(GROUPS, merged)
        self.mlr_forward = ConvStack(merged, C)
        self.mlr_skip = nn.Sequential(conv(merged, C, 1), nn.GroupNorm(GROUPS, C))
        self.decoder = Decoder(architecture, self.mean)

    @property
    def encoders(self) -> tuple[Encoder, ...]:
        indices = range(1, self.architecture.num_encoders + 1)
        return tuple(self.get_submodule(f"mlr_encoder_{index}") for index in indices)

    def features(self, images_BcHW: torch.Tensor) -> torch.Tensor:
        return self.merge([encoder(images_BcHW) for encoder in self.encoders])

    def merge(self, features: list[torch.Tensor]) -> torch.Tensor:
        """One feature map [B, C, h, w] of the encoders' [B, C, h, w] each."""
        merged_BMhw = torch.cat(features, 1)
        skip_conv, skip_norm = self.mlr_skip
        skip_BChw = group_norm(skip_conv(merged_BMhw), skip_norm, relu=False)
        return torch.relu(skip_BChw + self.mlr_forward(group_norm(merged_BMhw, self.mlr_norm, relu=False)))
