"""The network grid: one cell per 8 x 8 pixels."""

from __future__ import annotations

import torch

STRIDE = 8


def grid_size(height_px: int, width_px: int) -> tuple[int, int]:
    """Grid cells (h, w) of an image; every stride-2 convolution of the encoder rounds up."""
    return -(-height_px // STRIDE), -(-width_px // STRIDE)


def cell_centres(
    h: int, w: int, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Pixel coordinates [2, h, w] (x, y) that the cells look through: (8 j + 4, 8 i + 4)."""
    x_px_w = torch.arange(w, device=device, dtype=dtype) * STRIDE + STRIDE / 2
    y_px_h = torch.arange(h, device=device, dtype=dtype) * STRIDE + STRIDE / 2
    return torch.stack((x_px_w.expand(h, w), y_px_h[:, None].expand(h, w)))
