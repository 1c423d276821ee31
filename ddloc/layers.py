"""Layers that all of DDLoc's networks are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_INITIAL_DEVIATION = 0.02


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, reflect: bool = False, dilation: int = 1):
    """A convolution with bias that keeps the size (or halves it, rounding up, at stride 2)."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        padding_mode="reflect" if reflect else "zeros",
    )


def double(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """A transposed convolution to twice the size, or to one less, by `output_size` of its call."""
    return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1)


def instance_norm(x_BChw: torch.Tensor) -> torch.Tensor:
    """Every map of every image to mean 0 and variance 1, without affine parameters; a map of one cell to 0."""
    x32_BChw = x_BChw.float()
    variance_BC11, mean_BC11 = torch.var_mean(x32_BChw, (2, 3), keepdim=True, correction=0)
    return ((x32_BChw - mean_BC11) * torch.rsqrt(variance_BC11 + 1e-5)).to(x_BChw.dtype)


def resized(x_BChw: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps at another size, by their nearest cells."""
    return x_BChw if tuple(x_BChw.shape[-2:]) == tuple(size) else F.interpolate(x_BChw, size, mode="nearest")


def initialise(net: nn.Module) -> None:
    """Weights N(0, 0.02), biases 0, by torch's global generator."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, _INITIAL_DEVIATION)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
