"""Discriminators: of patches (style), and of the whole image beside its mask (inpainting)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from ddloc.layers import initialise, instance_norm

_LEAK = 0.2
# Cells that the published discriminator of 480 x 720 images ends with: of the image branch and of the mask's.
_GLOBAL_CELLS, _LOCAL_CELLS = (7, 11), (15, 22)
# Six halvings must leave a cell.
MIN_IMAGE_SIDE = 64


class PatchDiscriminator(nn.Module):
    """Images [B, 3, H, W] to one score per overlapping patch, [B, 1, h, w] float32."""

    def __init__(self, width: int = 64):
        super().__init__()
        channels = (3, width, 2 * width, 4 * width, 8 * width, 1)
        strides = (2, 2, 2, 1, 1)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, s, padding=1) for a, b, s in zip(channels, channels[1:], strides))
        initialise(self)

    def forward(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.layers[0](images_B3HW), _LEAK)
        for layer in self.layers[1:-1]:
            x = F.leaky_relu(instance_norm(layer(x)), _LEAK)
        return self.layers[-1](x).float()


class GlobalLocalDiscriminator(nn.Module):
    """An image and its mask to one score per image, [B, 1] float32.

    The last unit is linear without bias. Its weights are kept as maps over the image, so that other sizes than the
    published 480 x 720 use the same weights, stretched, and a sum of the same size.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        self.of_image = _halving(6, width)
        self.of_mask = _halving(5, width)
        self.global_weight = nn.Parameter(torch.empty(1, 2 * width, *_GLOBAL_CELLS).normal_(0.0, 0.02))
        self.local_weight = nn.Parameter(torch.empty(1, 2 * width, *_LOCAL_CELLS).normal_(0.0, 0.02))
        initialise(self)

    def forward(self, images_B3HW: torch.Tensor, mask_B1HW: torch.Tensor) -> torch.Tensor:
        """Raises ValueError for images below 64 px."""
        if min(images_B3HW.shape[-2:]) < MIN_IMAGE_SIDE:
            raise ValueError(
                f"the inpainter's discriminator needs images of at least {MIN_IMAGE_SIDE} px, "
                f"got {tuple(images_B3HW.shape[-2:])}"
            )
        whole = _linear(self.of_image(images_B3HW).float(), self.global_weight)
        masked = _linear(self.of_mask(mask_B1HW.expand(-1, 3, -1, -1)).float(), self.local_weight)
        return whole + masked


def _halving(layers: int, width: int) -> nn.Sequential:
    channels = [3, width] + [2 * width] * (layers - 1)
    steps: list[nn.Module] = []
    for a, b in pairwise(channels):
        steps += [nn.Conv2d(a, b, 4, 2, padding=1), nn.LeakyReLU(_LEAK)]
    return nn.Sequential(*steps)


def _linear(x_BChw: torch.Tensor, weight_1Chw: torch.Tensor) -> torch.Tensor:
    """The scores [B, 1] of a linear unit whose weights are a map; of another size, it is stretched."""
    h, w = x_BChw.shape[-2:]
    stretched_1Chw = weight_1Chw
    if (h, w) != tuple(weight_1Chw.shape[-2:]):
        share = weight_1Chw.shape[-2] * weight_1Chw.shape[-1] / (h * w)
        stretched_1Chw = share * F.interpolate(weight_1Chw, (h, w), mode="bilinear", align_corners=False)
    return (x_BChw * stretched_1Chw).flatten(1).sum(1, keepdim=True)
