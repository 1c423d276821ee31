"""The attention network and the masks made of its scores: 1 keeps a pixel, 0 has it painted over."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ddloc.layers import conv, initialise, instance_norm

_BLOCKS = 7
FIRST_TEMPERATURE, LAST_TEMPERATURE = 0.9, 0.05
_TEMPERATURES_PER_EPOCH = 10
# Keeps logarithms finite.
_EPSILON = 1e-6


class Attention(nn.Module):
    """Images [B, 3, H, W] in [0, 1] to one score per pixel, [B, 1, H, W] float32, of any size from 16 px."""

    def __init__(self, width: int = 64):
        super().__init__()
        w, wide = width, 2 * width
        self.enter = conv(3, w, 7, reflect=True)
        self.down = nn.ModuleList(
            nn.ModuleList([conv(a, a, 3, reflect=True), conv(a, wide, 3, reflect=True)]) for a in (w, wide)
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList([conv(wide, wide, 3, reflect=True), conv(wide, wide, 3, reflect=True)]) for _ in range(_BLOCKS)
        )
        self.up = nn.ModuleList(
            nn.ModuleList([conv(wide, b, 3, reflect=True), conv(b, b, 3, reflect=True)]) for b in (wide, w)
        )
        self.leave = nn.Conv2d(w, 1, 1)
        self.prelu = nn.PReLU()  # one slope for the whole network
        initialise(self)

    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        x = self._layer(self.enter, images_B3HW)
        sizes = []
        for first, second in self.down:
            sizes.append(x.shape[-2:])
            x = F.avg_pool2d(self._layer(second, self._layer(first, x)), 2)
        for first, second in self.blocks:
            x = x + self._layer(second, self._layer(first, x))
        for first, second in self.up:
            x = F.interpolate(self._layer(first, x), sizes.pop(), mode="bilinear", align_corners=False)
            x = self._layer(second, x)
        return self.leave(x).float()

    def _layer(self, layer: nn.Module, x_BChw: torch.Tensor) -> torch.Tensor:
        return self.prelu(instance_norm(layer(x_BChw)))


def temperature(epochs_done: float, epochs: int) -> float:
    """Of the masks in training: from 0.9 to 0.05, linear in ten steps per epoch."""
    share = math.floor(_TEMPERATURES_PER_EPOCH * epochs_done + 1e-9) / (_TEMPERATURES_PER_EPOCH * epochs)
    return FIRST_TEMPERATURE + (LAST_TEMPERATURE - FIRST_TEMPERATURE) * min(share, 1.0)


def noisy_mask(scores_B1HW: torch.Tensor, uniform_B1HW: torch.Tensor, tau: float) -> torch.Tensor:
    """The soft mask of a training step, a relaxed sample.

    Args:
        uniform_B1HW: draws in [0, 1), made into Gumbel noise.
    """
    squeezed = (scores_B1HW + 1e-5) / 1.001
    gumbel = -torch.log(-torch.log(uniform_B1HW.clamp(_EPSILON, 1 - _EPSILON)))
    return torch.sigmoid((squeezed + gumbel) / tau)


def hard_mask(scores_B1HW: torch.Tensor) -> torch.Tensor:
    """0 or 1: a sigmoid of any temperature cut at a half is the sign of the score."""
    return (scores_B1HW > 0).to(scores_B1HW.dtype)
