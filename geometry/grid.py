"""The grids of labels and predictions: one cell per 8 x 8 pixels, or per pixel for full-size maps."""

from __future__ import annotations

import torch

# Pixels per cell of the network's own grid, and of full-size maps.
STRIDE = 8
FULL_SIZE_STRIDE = 1
STRIDES = (STRIDE, FULL_SIZE_STRIDE)
# What label files hold where there is nothing to say.
NODATA = -1.0


def grid_size(height_px: int, width_px: int, stride: int = STRIDE) -> tuple[int, int]:
    """Grid cells (h, w) of an image; every stride-2 convolution of the encoder rounds up."""
    return -(-height_px // stride), -(-width_px // stride)


def cell_centres(
    h: int, w: int, stride: int = STRIDE, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Pixel coordinates [2, h, w] (x, y) that the cells look through: ((j + 1/2) stride, (i + 1/2) stride)."""
    x_px_w = (torch.arange(w, device=device, dtype=dtype) + 0.5) * stride
    y_px_h = (torch.arange(h, device=device, dtype=dtype) + 0.5) * stride
    return torch.stack((x_px_w.expand(h, w), y_px_h[:, None].expand(h, w)))
