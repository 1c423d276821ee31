"""The generator of style translator, its inverse and the inpainter: CycleGAN's residual network of nine blocks."""

from __future__ import annotations

import torch
from torch import nn

from ddloc.layers import conv, double, initialise, instance_norm

_BLOCKS = 9


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = conv(channels, channels, 3, reflect=True)
        self.conv2 = conv(channels, channels, 3, reflect=True)

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        return x_BChw + instance_norm(self.conv2(torch.relu(instance_norm(self.conv1(x_BChw)))))


class Generator(nn.Module):
    """Images [B, 3, H, W] in [0, 1] to images of the same size, float32 in (-1, 1), of any size from 8 px.

    Args:
        width: channels after the first layer; 64 as published.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.enter = conv(3, width, 7, reflect=True)
        self.down = nn.ModuleList([conv(width, 2 * width, 3, 2), conv(2 * width, 4 * width, 3, 2)])
        self.blocks = nn.Sequential(*(_ResidualBlock(4 * width) for _ in range(_BLOCKS)))
        self.up = nn.ModuleList([double(4 * width, 2 * width), double(2 * width, width)])
        self.leave = conv(width, 3, 7, reflect=True)
        initialise(self)

    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        x = torch.relu(instance_norm(self.enter(images_B3HW)))
        sizes = []
        for layer in self.down:
            sizes.append(x.shape[-2:])
            x = torch.relu(instance_norm(layer(x)))
        x = self.blocks(x)
        for layer in self.up:
            x = torch.relu(instance_norm(layer(x, output_size=sizes.pop())))
        return torch.tanh(self.leave(x).float())
