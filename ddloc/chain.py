"""A photo on its way: into the synthetic style, masked, painted over, regressed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dataloader.preprocessing import Preprocessing
from dataloader.scenes import PUBLISHED_SCENES, SceneStatistics
from ddloc.attention import hard_mask
from ddloc.weights import load_best, record_in_stage
from networks import Architecture

_PURE = {"rgb_mean": (0.0, 0.0, 0.0), "rgb_std": (1.0, 1.0, 1.0)}
_PUBLISHED_COLOURS = {"urban": "urbanscape", "nature": "naturescape"}


def colours(img_normalize: str, statistics: SceneStatistics) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation that the regressor's images are normalised by."""
    if img_normalize == "pure":
        return dict(_PURE)
    if img_normalize in _PUBLISHED_COLOURS:
        statistics = PUBLISHED_SCENES[_PUBLISHED_COLOURS[img_normalize]]
    return {"rgb_mean": statistics.rgb_mean, "rgb_std": statistics.rgb_std}


def unnormalised(image_height: int) -> Preprocessing:
    """Images in [0, 1], as the translation takes them."""
    return Preprocessing(image_height, False, **_PURE)


class Normaliser:
    """Images in [0, 1] to the regressor's input."""

    def __init__(self, preprocessing: Preprocessing):
        self._mean_311, self._std_311 = (
            torch.tensor(v)[:, None, None] for v in (preprocessing.rgb_mean, preprocessing.rgb_std)
        )

    def __call__(self, images_B3HW: torch.Tensor) -> torch.Tensor:
        device = images_B3HW.device
        return (images_B3HW - self._mean_311.to(device)) / self._std_311.to(device)

    def inverse(self, normalised_B3HW: torch.Tensor) -> torch.Tensor:
        """The images in [0, 1] again."""
        device = normalised_B3HW.device
        return normalised_B3HW * self._std_311.to(device) + self._mean_311.to(device)


@dataclass(frozen=True)
class Translated:
    """What becomes of photos, images in [0, 1].

    Attributes:
        styled: T(x). mask_B1HW: 1 keeps. inpainted: I(m T(x)). composed: m T(x) + (1 - m) I(m T(x)).
    """

    styled_B3HW: torch.Tensor
    mask_B1HW: torch.Tensor
    inpainted_B3HW: torch.Tensor
    composed_B3HW: torch.Tensor


class Translation:
    """Style translator, attention and inpainter, one after the other."""

    def __init__(self, translator: nn.Module, attention: nn.Module, inpainter: nn.Module):
        self.translator, self.attention, self.inpainter = translator, attention, inpainter

    def __call__(self, images_B3HW: torch.Tensor, mask_of: Callable[[torch.Tensor], torch.Tensor] = hard_mask) -> Translated:
        """Translates photos in [0, 1].

        Args:
            mask_of: scores of the attention to the mask.
        """
        styled = self.translator(images_B3HW).clamp(0, 1)
        mask = mask_of(self.attention(images_B3HW))
        inpainted = self.inpainter(styled * mask).clamp(0, 1)
        return Translated(styled, mask, inpainted, mask * styled + (1 - mask) * inpainted)


class Chain(nn.Module):
    """From photos in [0, 1] to scene coordinates, as this project's networks answer; for evaluation.

    Args:
        translation: None: the regressor sees the photos themselves.
    """

    architecture = Architecture.for_task("coord", uncertainty="none")

    def __init__(self, translation: Translation | None, regressor: nn.Module, normalise: Normaliser):
        super().__init__()
        self.translation, self.regressor, self.normalise = translation, regressor, normalise

    def forward(self, images_B3HW: torch.Tensor) -> tuple[torch.Tensor, None]:
        if self.translation is not None:
            images_B3HW = self.translation(images_B3HW).composed_B3HW
        # The regressor's own uncertainty, if it has one, was not trained by DDLoc's loss.
        return self.regressor(self.normalise(images_B3HW))[0], None


def load_translation(project_dir: Path, device: torch.device) -> Translation:
    """The translation of a project: A as joint training left it, where that is finished."""
    return Translation(
        load_best(project_dir, "T", "T", device),
        load_best(project_dir, "joint", "A", device),
        load_best(project_dir, "I", "I", device),
    )


def load_chain(project_dir: Path, stage: str, device: torch.device) -> tuple[Chain, int]:
    """The chain that ends with the regressor of a stage (C: without translation), and its image height.

    Raises:
        FileNotFoundError, ValueError: a stage is not finished or its weights are damaged; names it.
    """
    record = record_in_stage(project_dir, stage)
    regressor = load_best(project_dir, stage, "C", device)
    translation = None if stage == "C" else load_translation(project_dir, device)
    return Chain(translation, regressor, Normaliser(record.preprocessing)), record.preprocessing.image_height
