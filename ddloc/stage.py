"""What the loop knows of a stage: networks, optimizers, a step, and what chooses the best checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataloader.batch import Views
from dataloader.prepare import RawBatch, prepare_views
from dataloader.scenes import SceneStatistics
from dataloader.section import SectionDataset
from dataloader.seeding import generator_of
from ddloc.chain import Normaliser, unnormalised
from ddloc.options import StageOptions
from ddloc.pairs import BUFFER, NOISE
from ddloc.validation import Score
from loss import LossResult
from runs.device import autocast_for
from runs.record import RunRecord


@dataclass(frozen=True)
class Moment:
    """Where a step stands in its run.

    Attributes:
        images_seen: photos before it. epoch: number of the epoch, from 0. epochs_done: with the fraction of this one.
    """

    images_seen: int
    epoch: int
    epochs_done: float


class LossNotFinite(ArithmeticError):
    """A loss of the step that runs is NaN or infinite."""


class Stage(ABC):
    """One of the six; subclasses add networks and optimizers by name and say what a step is.

    Attributes:
        networks: those that train. handed_on: those whose best weights are kept.
    """

    handed_on: tuple[str, ...]

    def __init__(self, options: StageOptions, record: RunRecord, project_dir: Path, device: torch.device):
        self.options, self.record, self.project_dir, self.device = options, record, project_dir, device
        self.normalise = Normaliser(record.preprocessing)
        self.networks: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.validation_photos: SectionDataset
        self.validation_renders: SectionDataset | None = None

    @property
    def statistics(self) -> SceneStatistics:
        return self.record.statistics

    @abstractmethod
    def step(self, real: RawBatch, partner: RawBatch, moment: Moment) -> LossResult:
        """One update of every optimizer; raw batches on the device."""

    @abstractmethod
    def validate(self) -> Score:
        """Of the networks as they are, in evaluation mode and without gradients."""

    def contents(self) -> dict[str, Any]:
        """What the state keeps besides networks and optimizers."""
        return {}

    def restore_contents(self, contents: dict[str, Any]) -> None:
        """Inverse of `contents`."""
        assert not contents, "a stage that keeps more restores more"

    def add(self, name: str, net: nn.Module) -> nn.Module:
        """Takes a network that trains."""
        # Convolutions are quicker in this layout.
        self.networks[name] = net.to(self.device, memory_format=torch.channels_last)
        return net

    def optimize(self, name: str, *networks: str) -> None:
        """Takes an optimizer of some of the networks."""
        parameters = [parameter for network in networks for parameter in self.networks[network].parameters()]
        self.optimizers[name] = torch.optim.Adam(parameters, lr=self.options.learningrate, betas=self.options.numbers.betas)

    def update(self, name: str, loss: torch.Tensor) -> None:
        """One step of an optimizer. Raises LossNotFinite, on a CPU; on a GPU looking would wait, there the log looks."""
        if self.device.type == "cpu" and not torch.isfinite(loss):
            raise LossNotFinite
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    def set_rate(self, rate: float) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate

    def arithmetic(self):
        """Context of the networks' passes."""
        return autocast_for(self.device, self.options.precision)

    @staticmethod
    def check_even(raw: RawBatch) -> None:
        """Raises ValueError: the images of a batch differ in size, and the padding would be translated with them."""
        if raw.padded:
            raise ValueError(
                f"images of different sizes in a batch, {sorted(set(raw.sizes))} at {raw.stems[0]}: use --batch_size 1"
            )

    def images(self, raw: RawBatch) -> torch.Tensor:
        """[B, 3, H, W] in [0, 1]; see `check_even`."""
        self.check_even(raw)
        views: Views = prepare_views(raw, unnormalised(self.record.preprocessing.image_height))
        return views.images_B3HW

    def noise(self, like_B1HW: torch.Tensor, moment: Moment) -> torch.Tensor:
        """Draws in [0, 1) for the masks of a step; the same on every device."""
        generator = generator_of(self.options.seed, NOISE, moment.images_seen)
        return torch.rand(like_B1HW.shape, generator=generator).to(like_B1HW.device)

    def buffer_generator(self, moment: Moment) -> torch.Generator:
        return generator_of(self.options.seed, BUFFER, moment.images_seen)


def frozen(networks: list[nn.Module], is_frozen: bool) -> None:
    """Whether gradients reach the weights of networks (they pass through in either case)."""
    for net in networks:
        net.requires_grad_(not is_frozen)
