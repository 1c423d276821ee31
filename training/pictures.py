"""What a step saw and said, as one picture: input, label, prediction, error and uncertainty of a few images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torchvision.utils import make_grid

from dataloader.batch import Batch
from dataloader.preprocessing import Preprocessing
from geometry.angles import angle_between_deg
from loss.normal import normal_from_logits

_MOST_IMAGES = 4
_PANEL_HEIGHT_PX = 128
_NO_LABEL_GREY = 0.25
# Errors up to this share of the cells have colours of their own; a few gross ones must not darken all others.
_SHOWN_SHARE = 0.95
_CLASS_COLOURS = ((31, 119, 180), (140, 86, 75), (44, 160, 44), (214, 39, 40), (23, 190, 207), (148, 103, 189))


@dataclass(frozen=True)
class _Maps:
    """Maps of a batch as colours in [0, 1], and its error.

    Attributes:
        label_B3hw, prediction_B3hw: RGB. error_B1hw: in `unit`.
        sigma_unit: of the predicted standard deviation; the same as the error's: both have one scale.
    """

    label_B3hw: torch.Tensor
    prediction_B3hw: torch.Tensor
    error_B1hw: torch.Tensor
    unit: str
    sigma_unit: str


def _coord(prediction_B3hw: torch.Tensor, batch: Batch) -> _Maps:
    low_3, high_3 = _limits(batch.labels_BChw, batch.valid_B1hw)
    span_13 = (high_3 - low_3).clamp_min(1e-6)[None, :, None, None]
    label, prediction = ((v - low_3[None, :, None, None]) / span_13 for v in (batch.labels_BChw, prediction_B3hw))
    error_B1hw = torch.linalg.norm(prediction_B3hw - batch.labels_BChw, dim=1, keepdim=True)
    return _Maps(label.clamp(0, 1), prediction.clamp(0, 1), error_B1hw, "m", "m")


def _depth(prediction_B1hw: torch.Tensor, batch: Batch) -> _Maps:
    low_1, high_1 = _limits(batch.labels_BChw, batch.valid_B1hw)
    span = (high_1 - low_1).clamp_min(1e-6)
    label, prediction = (_coloured((v - low_1) / span) for v in (batch.labels_BChw, prediction_B1hw))
    return _Maps(label, prediction, (prediction_B1hw - batch.labels_BChw).abs(), "m", "m")


def _normal(logits_B2hw: torch.Tensor, batch: Batch) -> _Maps:
    normal_B3hw = normal_from_logits(logits_B2hw)
    error_B1hw = angle_between_deg(normal_B3hw, batch.labels_BChw)[:, None]
    return _Maps((batch.labels_BChw + 1) / 2, (normal_B3hw + 1) / 2, error_B1hw, "deg", "rad")


def _semantics(logits_BCHW: torch.Tensor, batch: Batch) -> _Maps:
    classes_BHW = logits_BCHW.argmax(1)
    palette = torch.tensor(_CLASS_COLOURS, device=logits_BCHW.device) / 255
    label, prediction = (palette[v].permute(0, 3, 1, 2) for v in (batch.labels_BChw, classes_BHW))
    return _Maps(label, prediction, (classes_BHW != batch.labels_BChw)[:, None].float(), "wrong", "")


_MAPS: dict[str, Callable[[torch.Tensor, Batch], _Maps]] = {
    "coord": _coord,
    "depth": _depth,
    "normal": _normal,
    "semantics": _semantics,
}


@torch.no_grad()
def picture_grid(
    task: str, batch: Batch, preprocessing: Preprocessing, prediction_BChw: torch.Tensor, sigma_B1hw: torch.Tensor | None
) -> torch.Tensor:
    """A row an image: input, label, prediction, error and, where predicted, uncertainty; uint8 RGB [3, H, W], on the CPU.

    Error and uncertainty are as dark as they are small; their panels say what the brightest colour stands for. What has no
    label is grey. Draws no random numbers.

    Args:
        prediction_BChw, sigma_B1hw: the network's output, in any precision.
    """
    size = batch.images_B3HW.shape[-2:]
    batch = replace(
        batch, images_B3HW=_few(batch.images_B3HW), labels_BChw=_few(batch.labels_BChw), valid_B1hw=_few(batch.valid_B1hw)
    )
    maps = _MAPS[task](_few(prediction_BChw).float().nan_to_num(), batch)
    valid_B1hw = batch.valid_B1hw
    high = _shown_most(maps.error_B1hw, valid_B1hw)
    panels = [
        _image_colours(batch.images_B3HW, preprocessing),
        torch.where(valid_B1hw, maps.label_B3hw, _NO_LABEL_GREY),
        maps.prediction_B3hw,
        torch.where(valid_B1hw, _coloured(maps.error_B1hw / high), _NO_LABEL_GREY),
    ]
    words = ["", "label", "prediction", f"error, to {high:.3g} {maps.unit}"]
    if sigma_B1hw is not None:
        sigma_B1hw = _few(sigma_B1hw).float().nan_to_num()
        if maps.sigma_unit != maps.unit:
            high = _shown_most(sigma_B1hw, torch.ones_like(valid_B1hw))
        panels.append(_coloured(sigma_B1hw / high))
        words.append(f"uncertainty, to {high:.3g} {maps.sigma_unit}")
    return _grid(panels, words, size)


def _few(maps_BxHW: torch.Tensor) -> torch.Tensor:
    """The first images, thinned to about a panel's size: colouring what nobody sees would cost ten times the rest."""
    step = max(1, maps_BxHW.shape[-2] // _PANEL_HEIGHT_PX)
    return maps_BxHW[:_MOST_IMAGES, ..., ::step, ::step].detach()


def _grid(panels: list[torch.Tensor], words: list[str], size: tuple[int, ...]) -> torch.Tensor:
    """Panels side by side at one size, a row an image, with their words on the first row."""
    height = min(_PANEL_HEIGHT_PX, size[0])
    width = max(1, round(size[1] * height / size[0]))
    resized = [F.interpolate(panel.float(), (height, width), mode="nearest").cpu() for panel in panels]
    rows_BP3HW = torch.stack(resized, 1)
    B, P = rows_BP3HW.shape[:2]
    grid_3HW = make_grid(rows_BP3HW.flatten(0, 1), nrow=P, padding=2)
    grid_HW3 = np.ascontiguousarray((grid_3HW * 255).round().byte().permute(1, 2, 0).numpy())
    for column, text in enumerate(words):
        place = (2 + column * (width + 2) + 3, 14)
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(grid_HW3, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, colour, thickness, cv2.LINE_AA)
    return torch.from_numpy(grid_HW3).permute(2, 0, 1)


def _image_colours(images_BcHW: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """The network's input before its normalisation, RGB in [0, 1]."""
    mean_c, std_c = (images_BcHW.new_tensor(v)[None, :, None, None] for v in (preprocessing.rgb_mean, preprocessing.rgb_std))
    return (images_BcHW * std_c + mean_c).clamp(0, 1).expand(-1, 3, -1, -1)


def _limits(values_BChw: torch.Tensor, valid_B1hw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Least and largest label per channel; (0, 1) without any."""
    C = values_BChw.shape[1]
    if not valid_B1hw.any():
        return values_BChw.new_zeros(C), values_BChw.new_ones(C)
    valid_BChw = valid_B1hw.expand_as(values_BChw)
    low = values_BChw.masked_fill(~valid_BChw, math.inf).amin((0, 2, 3))
    return low, values_BChw.masked_fill(~valid_BChw, -math.inf).amax((0, 2, 3))


def _shown_most(values_B1hw: torch.Tensor, valid_B1hw: torch.Tensor) -> float:
    """The value of the brightest colour."""
    chosen = values_B1hw[valid_B1hw]
    if chosen.numel() == 0:
        return 1.0
    rank = max(1, math.ceil(_SHOWN_SHARE * chosen.numel()))
    return max(float(chosen.kthvalue(rank).values), 1e-6)


def _coloured(values_B1hw: torch.Tensor) -> torch.Tensor:
    """[0, 1] to the colours of viridis, RGB [B, 3, h, w]; beyond them the last ones."""
    steps_1_256 = np.arange(256, dtype=np.uint8)[None]
    table_256_3 = torch.from_numpy(cv2.applyColorMap(steps_1_256, cv2.COLORMAP_VIRIDIS)[0, :, ::-1].copy()) / 255
    index_Bhw = (values_B1hw[:, 0].clamp(0, 1) * 255).round().long()
    return table_256_3.to(values_B1hw.device)[index_Bhw].permute(0, 3, 1, 2)
