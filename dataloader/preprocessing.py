"""How an image becomes network input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from dataloader.batch import transferred

DEFAULT_IMAGE_HEIGHT = 480
# Luma weights of ITU-R BT.601, what grey cameras and image libraries use.
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Preprocessing:
    """Image size and normalisation, identical in training and evaluation.

    Attributes:
        image_height: shorter side of the network input, pixels.
        grayscale: one input channel instead of three.
        rgb_mean, rgb_std: of images in [0, 1]; a single number each for grey input.
    """

    image_height: int = DEFAULT_IMAGE_HEIGHT
    grayscale: bool = False
    rgb_mean: tuple[float, ...] = (0.4245, 0.4375, 0.3836)
    rgb_std: tuple[float, ...] = (0.1823, 0.1701, 0.1854)

    def normalise(
        self,
        images_B3HW: torch.Tensor,
        gain_BC: torch.Tensor | None = None,
        offset_BC: torch.Tensor | None = None,
        shading_B3HW: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """uint8 RGB [B, 3, H, W] to normalised float32 [B, 3 or 1, H, W]; no GPU waits.

        An optional photometric change, in units of [0, 1] images, x -> gain x + offset per image and channel ([B, 3],
        on the CPU) is folded into the same pass over the pixels; an optional shading multiplies x beforehand.
        """
        device = images_B3HW.device
        if gain_BC is None or offset_BC is None:
            scale, shift = _plain(self, device)
        else:
            scale, shift = (transferred(v, device) for v in self._scale_and_shift(gain_BC, offset_BC))
        if self.grayscale:
            images_B3HW = torch.einsum("bchw,c->bhw", images_B3HW.float(), _luma(device))[:, None]
            shading_B3HW = None if shading_B3HW is None else shading_B3HW.mean(1, keepdim=True)
        if shading_B3HW is not None:
            scale = scale * shading_B3HW
        # uint8 times float: conversion and scaling are one pass over the pixels.
        return (images_B3HW * scale).add_(shift)

    def _scale_and_shift(self, gain_BC: torch.Tensor, offset_BC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a byte is multiplied by, and what is added then, both [B, C, 1, 1]."""
        if self.grayscale:
            gain_BC, offset_BC = gain_BC.mean(1, keepdim=True), offset_BC.mean(1, keepdim=True)
        mean_C, std_C = torch.tensor(self.rgb_mean), torch.tensor(self.rgb_std)
        return (gain_BC / (255.0 * std_C))[..., None, None], ((offset_BC - mean_C) / std_C)[..., None, None]


@lru_cache(maxsize=16)
def _plain(preprocessing: Preprocessing, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    scale, shift = preprocessing._scale_and_shift(torch.ones(1, 1), torch.zeros(1, 1))
    return scale.to(device), shift.to(device)


@lru_cache(maxsize=16)
def _luma(device: torch.device) -> torch.Tensor:
    return torch.tensor(LUMA, device=device)
