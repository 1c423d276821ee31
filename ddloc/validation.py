"""What chooses the best checkpoint of a stage; smaller is better."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from dataloader.prepare import collate, prepare_views
from dataloader.section import SectionDataset
from ddloc.chain import Chain, Translated, unnormalised
from ddloc.losses import kept_share_divergence
from ddloc.pairs import same_names
from evaluation.coord import CoordFigures, coord_results
from evaluation.predict import predictions
from localization.solving import SolverOptions

_TINY = 1e-9


@dataclass(frozen=True)
class Score:
    """Figures by name; the first one ranks, the others decide between equals."""

    figures: dict[str, float]

    def __lt__(self, other: Score) -> bool:
        return tuple(self.figures.values()) < tuple(other.figures.values())

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())


def pose_score(chain: Chain, photos: SectionDataset, device: torch.device, precision: str) -> Score:
    """Median position error of the chain on the validation photos, metres; then of the coordinates."""
    figures = CoordFigures()
    stream = predictions(
        chain, photos, unnormalised(photos.image_height), device=device, precision=precision, title="validate"
    )
    for result in coord_results(stream, SolverOptions()):
        figures.add(result)
    summary = figures.summary()
    return Score({
        "median position error (m)": summary.translation_m.median,
        "median coordinate error (m)": summary.coord_error_m.median,
    })  # fmt: skip


@dataclass(frozen=True)
class ValidationPairs:
    """Validation photos and the renders of their names."""

    photos: SectionDataset
    renders: SectionDataset

    def images(self, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(photo, render), both [1, 3, H, W] in [0, 1]; one by one, as sizes may differ."""
        preprocessing = unnormalised(self.photos.image_height)
        for index, partner in enumerate(same_names(self.photos, self.renders)):
            yield tuple(
                prepare_views(collate([sample]), preprocessing).images_B3HW.to(device)
                for sample in (self.photos[index], self.renders[partner])
            )


def translator_score(translate: Callable[[torch.Tensor], torch.Tensor], pairs: ValidationPairs, device) -> Score:
    """Mean absolute difference of the translated photo from its render."""
    differences = [(translate(photo).clamp(0, 1) - render).abs().mean().item() for photo, render in pairs.images(device)]
    return Score({"difference from the render": sum(differences) / len(differences)})


def attention_score(
    translate: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]], rho: float, pairs: ValidationPairs, device
) -> Score:
    """Mean absolute difference over the kept pixels, and the divergence of the kept share, weighed as in training.

    Args:
        translate: photo to (translated photo, hard mask).
    """
    weighted, kept, masks = 0.0, 0.0, []
    for photo, render in pairs.images(device):
        styled, mask = translate(photo)
        weighted += (mask * (styled.clamp(0, 1) - render).abs()).mean(1).sum().item()
        kept += mask.sum().item()
        masks.append(mask.mean())
    divergence = kept_share_divergence(torch.stack(masks), rho).item()
    return Score({"kept pixels' difference and divergence": weighted / max(kept, _TINY) + divergence})


def inpainter_score(translate: Callable[[torch.Tensor, torch.Tensor], Translated], pairs: ValidationPairs, device) -> Score:
    """Mean absolute difference of what was painted from what had been there, under another photo's mask.

    Args:
        translate: (photo, photo that lends its mask) to what becomes of it.
    """
    photos = [photo for photo, _ in pairs.images(device)]
    difference, hidden = 0.0, 0.0
    for photo, lender in zip(photos, photos[1:] + photos[:1]):
        if lender.shape != photo.shape:
            lender = torch.nn.functional.interpolate(lender, photo.shape[-2:], mode="bilinear", align_corners=False)
        result = translate(photo, lender)
        hole = 1 - result.mask_B1HW
        difference += (hole * (result.inpainted_B3HW - result.styled_B3HW).abs()).mean(1).sum().item()
        hidden += hole.sum().item()
    return Score({"difference in what was hidden": difference / max(hidden, _TINY)})
