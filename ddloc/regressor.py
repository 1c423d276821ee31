"""The coordinate regressor: the published U-Net, or this project's own network in its place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ddloc.layers import conv, double, initialise, instance_norm, resized
from geometry.grid import grid_size

REGRESSORS = ("unet", "transposenet")
# How much of the encoder's maps the decoder sees, from deep to shallow.
_DAMPING = (0.1, 0.05, 0.01)
_DILATIONS = (1, 3, 5)
# Four halvings and a dilation of five: the deepest map needs six cells.
_MULTIPLE, _SHORTEST = 16, 96


def working_size(height: int, width: int) -> tuple[int, int]:
    """Size that the U-Net works at for maps of a quarter of the image: 128 x 192 for the published 120 x 180."""
    scale = max(1.0, _SHORTEST / min(height, width))
    return tuple(_MULTIPLE * math.ceil(scale * side / _MULTIPLE - 1e-9) for side in (height, width))


class _DilatedBlock(nn.Module):
    """Three parallel convolutions of dilation 1, 3, 5, joined, and added."""

    def __init__(self, channels: int, prelu: nn.PReLU):
        super().__init__()
        self.parallel = nn.ModuleList(conv(channels, channels, 3, reflect=True, dilation=d) for d in _DILATIONS)
        self.join = conv(len(_DILATIONS) * channels, channels, 3)
        self.prelu = prelu

    def forward(self, x_BChw: torch.Tensor) -> torch.Tensor:
        wide = torch.cat([layer(x_BChw) for layer in self.parallel], 1)
        return x_BChw + instance_norm(self.join(self.prelu(instance_norm(wide))))


class UNetRegressor(nn.Module):
    """Normalised images [B, 3, H, W] to scene coordinates [B, 3, h, w] on the stride-8 grid, float32, metres.

    Sizes follow from the image; at 480 x 720 they are the published ones.

    Args:
        width: 64 as published.
        mean_3, spread: coordinates are spread * output + mean. The published network has neither and must find the scene
            with its last bias; both are kept with the weights.
    """

    def __init__(self, width: int = 64, mean_3: torch.Tensor | None = None, spread: float = 1.0):
        super().__init__()
        w = width
        self.prelu = nn.PReLU()  # one slope for the whole network
        self.shrink = nn.ModuleList([conv(3, w // 8, 3), conv(w // 8, w // 4, 3, 2), conv(w // 4, w // 2, 3, 2)])
        self.settle = conv(w // 2, w // 2, 3)
        self.encoder = nn.ModuleList([nn.ModuleList([conv(w // 2, w, 7, reflect=True)])])
        for a, b in ((w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w)):
            self.encoder.append(nn.ModuleList([conv(a, b, 3), conv(b, b, 3)]))
        self.centre = nn.Sequential(*(_DilatedBlock(8 * w, self.prelu) for _ in range(3)))
        entering, leaving = (8 * w, 8 * w, 4 * w + 3, 2 * w + 3), (4 * w, 2 * w, w, w // 2)
        self.decoder = nn.ModuleList(
            nn.ModuleList([conv(a, b, 3, reflect=True), double(b, b)]) for a, b in zip(entering, leaving)
        )
        self.side = nn.ModuleList(conv(a, 3, 3) for a in entering[1:])
        self.near = conv(w // 2 + 3, w // 2, 7)
        self.fine = nn.ModuleList([conv(w // 2, w // 2, 3), conv(w // 2, w // 2, 3, 2)])
        self.coarse = conv(entering[-1], w // 2, 3)
        self.leave = conv(w, 3, 7)
        self.register_buffer("mean_3", torch.zeros(3) if mean_3 is None else mean_3.clone())
        self.register_buffer("spread", torch.tensor(float(spread)))
        initialise(self)

    def forward(self, images_B3HW: torch.Tensor) -> tuple[torch.Tensor, None]:
        """(coordinates, no uncertainty), as this project's networks answer."""
        H, W = images_B3HW.shape[-2:]
        quarter, grid = grid_size(H, W, 4), grid_size(H, W)
        maps = self._encoded(images_B3HW, working_size(*quarter))
        x = self.centre(maps[-1])
        side = None
        for step, (first, second) in enumerate(self.decoder):
            if step > 0:
                skip = _DAMPING[step - 1] * maps[-1 - step]
                x = torch.cat([x, skip] if side is None else [x, skip, side], 1)
                side = resized(self.side[step - 1](x), (2 * x.shape[2], 2 * x.shape[3]))
            entered = x
            x = self._layer(first, x)
            x = self._normalised(second(x, output_size=(2 * x.shape[2], 2 * x.shape[3])))
        near = resized(self._layer(self.near, torch.cat([x, side], 1)), quarter)
        fine = self._layer(self.fine[1], self._layer(self.fine[0], near))
        coarse = self._layer(self.coarse, resized(entered, grid))
        joined = torch.cat([fine, coarse], 1)
        with torch.autocast(joined.device.type, enabled=False):  # metres need more digits
            return self.spread * self.leave(joined.float()) + self.mean_3[:, None, None], None

    def _encoded(self, images_B3HW: torch.Tensor, size: tuple[int, int]) -> list[torch.Tensor]:
        """Encoder maps at 1/2, 1/4, 1/8, 1/16 of the working size."""
        x = images_B3HW
        for layer in self.shrink:
            x = self._layer(layer, x)
        x = self._layer(self.settle, resized(x, size))
        maps = []
        for layers in self.encoder:
            for layer in layers:
                x = self._layer(layer, x)
            x = F.avg_pool2d(x, 2)
            maps.append(x)
        return maps

    def _layer(self, layer: nn.Module, x_BChw: torch.Tensor) -> torch.Tensor:
        return self._normalised(layer(x_BChw))

    def _normalised(self, x_BChw: torch.Tensor) -> torch.Tensor:
        return self.prelu(instance_norm(x_BChw))
