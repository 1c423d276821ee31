"""How an image becomes network input, and the record of it that travels with the weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

DEFAULT_IMAGE_HEIGHT = 480
RECORD_NAME = "training.json"
# Luma weights of ITU-R BT.601, what grey cameras and image libraries use.
_LUMA = (0.299, 0.587, 0.114)


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

    def normalise(self, images_B3HW: torch.Tensor, gain_B: torch.Tensor | None = None,
                  offset_B: torch.Tensor | None = None, shading_B3HW: torch.Tensor | None = None) -> torch.Tensor:
        """uint8 RGB [B, 3, H, W] to normalised float32 [B, 3 or 1, H, W].

        An optional photometric change, in units of [0, 1] images, x -> gain x + offset per image (or per image and
        channel, [B, 3]) is folded into the same pass over the pixels; an optional shading multiplies x beforehand.
        """
        mean_C, std_C = torch.tensor(self.rgb_mean), torch.tensor(self.rgb_std)
        gain_BC = torch.ones(1, 1) if gain_B is None else gain_B.cpu().reshape(len(images_B3HW), -1)
        offset_BC = torch.zeros(1, 1) if offset_B is None else offset_B.cpu().reshape(len(images_B3HW), -1)
        if self.grayscale:
            gain_BC, offset_BC = gain_BC.mean(1, keepdim=True), offset_BC.mean(1, keepdim=True)
        scale = (gain_BC / (255.0 * std_C))[..., None, None].to(images_B3HW.device, non_blocking=True)
        shift = ((offset_BC - mean_C) / std_C)[..., None, None].to(images_B3HW.device, non_blocking=True)
        if self.grayscale:
            luma_3 = torch.tensor(_LUMA, device=images_B3HW.device)
            images_B3HW = torch.einsum("bchw,c->bhw", images_B3HW.float(), luma_3)[:, None]
            shading_B3HW = None if shading_B3HW is None else shading_B3HW.mean(1, keepdim=True)
        if shading_B3HW is not None:
            scale = scale * shading_B3HW
        # uint8 times float: conversion and scaling are one pass over the pixels.
        return (images_B3HW * scale).add_(shift)


def write_record(folder: Path, record: dict) -> None:
    """Writes the training record (JSON) beside the weights, atomically."""
    temporary = folder / f".{RECORD_NAME}.part"
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.replace(folder / RECORD_NAME)


def record_of(weights: Path) -> dict | None:
    """The training record that belongs to a weights file: `<stem>.json` beside it, else the folder's training.json."""
    for candidate in (weights.with_suffix(".json"), weights.parent / RECORD_NAME):
        if candidate.is_file():
            try:
                return json.loads(candidate.read_text())
            except json.JSONDecodeError as error:
                raise ValueError(f"training record {candidate} is not valid JSON: {error}") from None
    return None


def preprocessing_to_record(preprocessing: Preprocessing) -> dict:
    """JSON form of a Preprocessing."""
    return asdict(preprocessing)


def preprocessing_from_record(record: dict) -> Preprocessing:
    """The inverse of `preprocessing_to_record`; unknown keys are an error."""
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    try:
        return Preprocessing(**values)
    except TypeError as error:
        raise ValueError(f"training record: {error}") from None
