"""The decoder: features to the task's prediction and its uncertainty."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from networks.architecture import Architecture
from networks.encoder import ADDED_BLOCKS, GROUPS, ResidualStack, conv
from networks.group_norm import group_norm

UPSAMPLING = 8
LOG_UNCERTAINTY_RANGE = (-16.10, 13.82)  # log of 1e-7 and of 1e6


class DenseUpsampling(nn.Module):
    """Dense upsampling convolution: features [B, C, h, w] to [B, out, 8 h, 8 w]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = conv(in_channels, out_channels * UPSAMPLING**2, 3)
        self.norm = nn.GroupNorm(GROUPS, out_channels * UPSAMPLING**2)

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(group_norm(self.conv(x_BChw), self.norm), UPSAMPLING)


class Decoder(nn.Module):
    """Features [B, C, h, w] to float32 prediction [B, task, h, w] and standard deviation [B, 1, h, w] or None.

    `fc3`'s task rows work in units of `head_scale`: prediction = head_scale * fc3(x) + mean. They, the exponential and
    everything after them run in float32, whatever autocast says.
    """

    def __init__(self, architecture: Architecture, mean: torch.Tensor):
        super().__init__()
        C = architecture.widths[1]
        self.task_channels = architecture.task_channels
        self.head_scale = 1.0
        for index in range(1, ADDED_BLOCKS + 1):
            self.add_module(f"dec_add_res_block{index}", ResidualStack(C))
        self.res3_conv1, self.res3_norm1 = conv(C, C, 1), nn.GroupNorm(GROUPS, C)
        self.res3_conv2, self.res3_norm2 = conv(C, C, 1), nn.GroupNorm(GROUPS, C)
        self.res3_conv3, self.res3_norm3 = conv(C, C, 1), nn.GroupNorm(GROUPS, C)
        self.fc1, self.fc1_norm = conv(C, C, 1), nn.GroupNorm(GROUPS, C)
        self.fc2, self.fc2_norm = conv(C, C, 1), nn.GroupNorm(GROUPS, C)
        self.duc_upsample = DenseUpsampling(C, architecture.out_channels) if architecture.fullsize else None
        self.fc3 = conv(architecture.out_channels if architecture.fullsize else C, architecture.out_channels, 1)
        self.register_buffer("mean", mean.clone())

    def forward(self, features_BChw: torch.Tensor, image_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor | None]:
        res = features_BChw
        for index in range(1, ADDED_BLOCKS + 1):
            res = self.get_submodule(f"dec_add_res_block{index}")(res)
        x = group_norm(self.res3_conv1(res), self.res3_norm1)
        x = group_norm(self.res3_conv2(x), self.res3_norm2)
        x = group_norm(self.res3_conv3(x), self.res3_norm3)
        res = res + x  # both non-negative, as in the encoder

        x = group_norm(self.fc1(res), self.fc1_norm)
        x = group_norm(self.fc2(x), self.fc2_norm)
        if self.duc_upsample is not None:
            x = F.interpolate(self.duc_upsample(x), image_size, mode="bilinear", align_corners=False)
        return self._head(x)

    def _head(self, x_BChw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        with torch.autocast(x_BChw.device.type, enabled=False):
            out_BChw = self.fc3(x_BChw.float())
            prediction = self.head_scale * out_BChw[:, : self.task_channels] + self.mean[:, None, None]
            if out_BChw.shape[1] == self.task_channels:
                return prediction, None
            return prediction, out_BChw[:, self.task_channels :].clamp(*LOG_UNCERTAINTY_RANGE).exp()
