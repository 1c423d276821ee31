"""The convolutional encoder: an image to a feature map at an eighth of its size."""

from __future__ import annotations

import torch
from torch import nn

from networks.group_norm import group_norm

GROUPS = 32
ADDED_BLOCKS = 2  # residual blocks that CrossLoc adds to the DSAC* encoder, and again to its decoder


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution with bias that keeps the size (or halves it, rounding up, at stride 2)."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)


class ConvStack(nn.Sequential):
    """conv 3x3, conv 1x1, conv 3x3, each followed by GroupNorm and ReLU (indices 0 to 8)."""

    def __init__(self, in_channels: int, channels: int):
        layers: list[nn.Module] = []
        for kernel, source in ((3, in_channels), (1, channels), (3, channels)):
            layers += [conv(source, channels, kernel), nn.GroupNorm(GROUPS, channels), nn.ReLU()]
        super().__init__(*layers)

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        for index in range(0, len(self), 3):
            x_BChw = group_norm(self[index](x_BChw), self[index + 1])
        return x_BChw


class ResidualStack(ConvStack):
    """A `ConvStack` that is added to its input."""

    def __init__(self, channels: int):
        super().__init__(channels, channels)

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        """Returns x + block(x) of a non-negative x: its ReLU would change nothing."""
        return x_BChw + super().forward(x_BChw)


class Encoder(nn.Module):
    """Images [B, in_channels, H, W] to features [B, C, h, w] with h = ceil(H / 8), w = ceil(W / 8)."""

    def __init__(self, in_channels: int, widths: tuple[int, int]):
        super().__init__()
        C4, C = widths
        self.conv1, self.norm1 = conv(in_channels, 32, 3), nn.GroupNorm(GROUPS, 32)
        self.conv2, self.norm2 = conv(32, 64, 3, 2), nn.GroupNorm(GROUPS, 64)
        self.conv3, self.norm3 = conv(64, 128, 3, 2), nn.GroupNorm(GROUPS, 128)
        self.conv4, self.norm4 = conv(128, C4, 3, 2), nn.GroupNorm(GROUPS, C4)

        self.res1_conv1, self.res1_norm1 = conv(C4, C4, 3), nn.GroupNorm(GROUPS, C4)
        self.res1_conv2, self.res1_norm2 = conv(C4, C4, 1), nn.GroupNorm(GROUPS, C4)
        self.res1_conv3, self.res1_norm3 = conv(C4, C4, 3), nn.GroupNorm(GROUPS, C4)

        self.res2_conv1, self.res2_norm1 = conv(C4, C, 3), nn.GroupNorm(GROUPS, C)
        self.res2_conv2, self.res2_norm2 = conv(C, C, 1), nn.GroupNorm(GROUPS, C)
        self.res2_conv3, self.res2_norm3 = conv(C, C, 3), nn.GroupNorm(GROUPS, C)
        self.widens = C4 != C
        if self.widens:
            self.res2_skip, self.res2_skip_norm = conv(C4, C, 1), nn.GroupNorm(GROUPS, C)
        for index in range(1, ADDED_BLOCKS + 1):
            self.add_module(f"enc_add_res_block{index}", ResidualStack(C))

    def forward(self, images_BcHW: torch.Tensor) -> torch.Tensor:
        x = group_norm(self.conv1(images_BcHW), self.norm1)
        x = group_norm(self.conv2(x), self.norm2)
        x = group_norm(self.conv3(x), self.norm3)
        res = group_norm(self.conv4(x), self.norm4)

        x = group_norm(self.res1_conv1(res), self.res1_norm1)
        x = group_norm(self.res1_conv2(x), self.res1_norm2)
        x = group_norm(self.res1_conv3(x), self.res1_norm3)
        res = res + x  # both non-negative: the ReLU of the residual would change nothing

        x = group_norm(self.res2_conv1(res), self.res2_norm1)
        x = group_norm(self.res2_conv2(x), self.res2_norm2)
        x = group_norm(self.res2_conv3(x), self.res2_norm3)
        if self.widens:
            res = torch.relu(group_norm(self.res2_skip(res), self.res2_skip_norm, relu=False) + x)
        else:
            res = res + x
        for index in range(1, ADDED_BLOCKS + 1):
            res = self.get_submodule(f"enc_add_res_block{index}")(res)
        return res
