"""What chance does to training images: declared ranges, and draws that depend on the position in the run only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from dataloader.seeding import GEOMETRY, PHOTOMETRY, generator_of
from records.options import between, check, increasing_positive, option

# Rows and columns of the grid on which the shading is drawn.
_SHADING_NODES = (4, 6)


@dataclass(frozen=True)
class AugmentationOptions:
    """Ranges of the training augmentation, uniform; geometry is common to a step, colours are an image's own.

    Scale and roll: the zoom, and the turn about the optical axis. Tilt turns the optical axis about both image axes. A
    shift moves the principal point, as if the sensor had been displaced: other parts of a photo come to lie in the
    middle. Shading is a smooth gain: light, vignetting and mosaicked orthophotos differ so from photo to photo.
    """

    jitter: float = option(0.1, check=between(0, 1), help="brightness and contrast jitter")
    colour_jitter: float = option(0.0, check=between(0, 1), help="additional gain jitter per colour channel")
    shading: float = option(0.0, check=between(0, 0.6), help="smooth brightness and colour changes over the image")
    max_angle: float = option(30.0, check=between(0, 180), metavar="DEG", help="rotation augmentation, +- degrees")
    max_tilt: float = option(
        0.0, check=between(0, 30), metavar="DEG", help="tilt augmentation about both image axes, +- degrees"
    )
    max_shift: float = option(0.0, check=between(0, 0.5), help="shift augmentation, +- share of the image size")
    scale_range: tuple[float, float] = option(
        (2 / 3, 3 / 2), check=increasing_positive, metavar=("LOW", "HIGH"), help="scale augmentation"
    )

    def __post_init__(self) -> None:
        check(self)

    def zoomed(self, factor: float) -> AugmentationOptions:
        """The same with all zooms multiplied."""
        low, high = self.scale_range
        return replace(self, scale_range=(factor * low, factor * high))


@dataclass(frozen=True)
class Draws:
    """What chance decided for one batch, in units of the options' ranges; all on the CPU.

    Attributes:
        scale: in [0, 1) from the lower to the upper end of the range.
        roll: in [-1, 1).
        tilt_2, shift_2: x and y, in [-1, 1).
        jitter_B5: brightness, contrast, and one per colour, in [-1, 1).
        shading_B4hw: gains on a coarse grid, in [-1, 1): the common one and one per colour; None without shading.
    """

    scale: float
    roll: float
    tilt_2: torch.Tensor
    shift_2: torch.Tensor
    jitter_B5: torch.Tensor
    shading_B4hw: torch.Tensor | None


def draw_augmentation(
    options: AugmentationOptions, *, seed: int, epoch: int, images_seen: int, indices: Sequence[int]
) -> Draws:
    """Draws for one batch; a pure function.

    Colours depend on (seed, epoch, index) of each sample, geometry on (seed, images_seen): neither the batch that a
    sample comes in nor its place there, nor the number of loaders or ranks, changes what its colours look like.

    Args:
        images_seen: by all ranks together before this step.
        indices: of the batch's samples as drawn, `RawViews.indices`.
    """
    step = generator_of(seed, GEOMETRY, images_seen)
    scale, roll, *turns = torch.rand(6, generator=step, dtype=torch.float64).tolist()
    generators = [generator_of(seed, PHOTOMETRY, epoch, index) for index in indices]
    jitter_B5 = torch.stack([_signed(5, generator=generator) for generator in generators])
    shading_B4hw = None
    if options.shading:
        shading_B4hw = torch.stack([_signed(4, *_SHADING_NODES, generator=generator) for generator in generators])
    tilt_2, shift_2 = (2 * torch.tensor(turns, dtype=torch.float64) - 1).split(2)
    return Draws(scale, 2 * roll - 1, tilt_2, shift_2, jitter_B5, shading_B4hw)


def _signed(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return 2 * torch.rand(shape, generator=generator) - 1
