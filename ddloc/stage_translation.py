"""Stages T, A and I: the style translator, the attention, the inpainter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dataloader.prepare import RawBatch
from ddloc.attention import hard_mask, noisy_mask, temperature
from ddloc.chain import Translated
from ddloc.losses import feature_distance, gram, kept_share_divergence, l1, least_squares
from ddloc.options import StageOptions
from ddloc.perceptual import features
from ddloc.stage import Moment, Stage, frozen
from ddloc.validation import Score, ValidationPairs, attention_score, inpainter_score, translator_score
from ddloc.weights import fresh, load_best
from loss import LossResult
from runs.record import RunRecord

_CYCLE, _IDENTITY = 10.0, 5.0
_INPAINTER_ADVERSARIAL = 0.01
_BUFFER_SIZE = 50


class FakeBuffer:
    """Fakes of earlier steps, so that a discriminator does not forget them; half precision, on the CPU."""

    def __init__(self, size: int = _BUFFER_SIZE):
        self.size, self.images = size, []

    def exchanged(self, images_B3HW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Every image as it is, or, by even chance once the buffer is full, an earlier one whose place it takes."""
        chosen = []
        for image_3HW in images_B3HW.detach():
            kept = image_3HW.half().cpu()
            swap, place = torch.rand((), generator=generator), int(torch.randint(self.size, (1,), generator=generator))
            if len(self.images) < self.size:
                self.images.append(kept)
            elif swap < 0.5 and self.images[place].shape == kept.shape:
                image_3HW, self.images[place] = self.images[place].to(image_3HW), kept
            chosen.append(image_3HW)
        return torch.stack(chosen)


class TranslatorStage(Stage):
    """T: CycleGAN with least squares between photos and synthetic images."""

    handed_on = ("T",)
    _generators: tuple[str, ...] = ("T", "T_inverse")
    _discriminators = ("D_synthetic", "D_real")

    def __init__(self, options: StageOptions, record: RunRecord, project_dir: Path, device: torch.device):
        super().__init__(options, record, project_dir, device)
        for name in (*self._generators, *self._discriminators):
            self.add(name, fresh(name, options.width))
        self.optimize("generators", *self._generators)
        self.optimize("discriminators", *self._discriminators)
        self.buffers = {"synthetic": FakeBuffer(), "real": FakeBuffer()} if options.isbuffer else {}

    def contents(self) -> dict[str, Any]:
        return {name: list(buffer.images) for name, buffer in self.buffers.items()}

    def restore_contents(self, contents: dict[str, Any]) -> None:
        for name, buffer in self.buffers.items():
            buffer.images = list(contents[name])

    def step(self, real: RawBatch, partner: RawBatch, moment: Moment) -> LossResult:
        photo, render = self.images(real), self.images(partner)
        discriminators = [self.networks[name] for name in self._discriminators]
        frozen(discriminators, True)
        with self.arithmetic():
            mask, divergence = self._mask(photo, moment)
            fakes, losses = self._cycle(photo, render, mask)
        total = losses["adversarial"] + losses["cycle"] + losses["identity"] + divergence
        self.update("generators", total)
        frozen(discriminators, False)
        generator = self.buffer_generator(moment)
        shown = {
            name: self.buffers[name].exchanged(fake, generator) if self.buffers else fake.detach()
            for name, fake in fakes.items()
        }
        with self.arithmetic():
            of_discriminators = sum(
                _discriminator_loss(net, true, shown[name])
                for net, true, name in zip(discriminators, (render, photo), ("synthetic", "real"))
            )
        self.update("discriminators", of_discriminators)
        kept = torch.ones((), device=self.device) if mask is None else mask.mean()
        return LossResult(total, kept, {**losses, "divergence": divergence, "discriminators": of_discriminators})

    def _mask(self, photo: torch.Tensor, moment: Moment) -> tuple[torch.Tensor | None, torch.Tensor]:
        """The mask that photos enter with (None: whole), and what it costs."""
        return None, photo.new_zeros(())

    def _cycle(self, photo: torch.Tensor, render: torch.Tensor, mask: torch.Tensor | None):
        """(fakes by domain, losses of the generators)."""
        T, T_inverse = self.networks["T"], self.networks["T_inverse"]
        fake_render, fake_photo = T(photo if mask is None else photo * mask), T_inverse(render)
        of_photo, of_render = l1(T_inverse(fake_render), photo, mask), l1(T(fake_photo), render)
        adversarial = [
            least_squares(self.networks["D_synthetic"](fake_render), 1.0),
            least_squares(self.networks["D_real"](fake_photo), 1.0),
        ]
        losses = {
            "adversarial": adversarial[0] + adversarial[1],
            "cycle": _CYCLE * (of_photo + of_render),
            "identity": _IDENTITY * (l1(T_inverse(photo), photo) + l1(T(render), render)),
        }
        return {"synthetic": fake_render, "real": fake_photo}, losses

    def validate(self) -> Score:
        with self.arithmetic():
            return translator_score(self.networks["T"], self._pairs, self.device)

    @property
    def _pairs(self) -> ValidationPairs:
        return ValidationPairs(self.validation_photos, self.validation_renders)


class AttentionStage(TranslatorStage):
    """A, with a fresh CycleGAN that sees of a photo what the mask keeps."""

    handed_on = ("A",)
    _generators = ("T", "T_inverse", "A")

    def _mask(self, photo: torch.Tensor, moment: Moment) -> tuple[torch.Tensor, torch.Tensor]:
        scores = self.networks["A"](photo)
        tau = temperature(moment.epochs_done, self.options.total_epoch_num)
        mask = noisy_mask(scores, self.noise(scores, moment), tau)
        return mask, kept_share_divergence(mask, self.options.rho)

    def validate(self) -> Score:
        def translate(photo: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mask = hard_mask(self.networks["A"](photo))
            return self.networks["T"](photo * mask), mask

        with self.arithmetic():
            return attention_score(translate, self.options.rho, self._pairs, self.device)


class InpainterStage(Stage):
    """I: paints over what the mask of another photo hides of a translated photo. T and A are frozen.

    The published system takes masks from a buffer of 500 earlier ones. They depend on their photo alone, as T and A are
    frozen and masks are free of noise here: the mask of a random other photo is the same without the buffer.
    """

    handed_on = ("I",)

    def __init__(self, options: StageOptions, record: RunRecord, project_dir: Path, device: torch.device):
        super().__init__(options, record, project_dir, device)
        self.translator = load_best(project_dir, "T", "T", device)
        self.attention = load_best(project_dir, "A", "A", device)
        regressor = load_best(project_dir, "C", "C", device)
        self.features = features(record.options["perceptual"], regressor, self.normalise, device)
        self.add("I", fresh("I", options.width))
        self.add("D_inpainted", fresh("D_inpainted", options.width))
        self.optimize("inpainter", "I")
        self.optimize("discriminator", "D_inpainted")

    def step(self, real: RawBatch, partner: RawBatch, moment: Moment) -> LossResult:
        with torch.no_grad(), self.arithmetic():
            target, mask = self._masked(self.images(real), self.images(partner))
        inpainter, discriminator = self.networks["I"], self.networks["D_inpainted"]
        frozen([discriminator], True)
        with self.arithmetic():
            painted = inpainter(target * mask)
            composed = mask * target + (1 - mask) * painted
            losses = self._compared(painted, target, mask)
            losses["adversarial"] = _INPAINTER_ADVERSARIAL * least_squares(discriminator(composed, mask), 1.0)
        total = sum(losses.values())
        self.update("inpainter", total)
        frozen([discriminator], False)
        with self.arithmetic():
            fake, true = discriminator(composed.detach(), mask), discriminator(target, mask)
            of_discriminator = (least_squares(true, 1.0) + least_squares(fake, 0.0)) / 2
        self.update("discriminator", of_discriminator)
        return LossResult(total, mask.mean(), {**losses, "discriminator": of_discriminator})

    def _masked(self, photo: torch.Tensor, lender: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The translated photo, and the mask of the photo that lends it."""
        mask = hard_mask(self.attention(lender))
        if mask.shape[-2:] != photo.shape[-2:]:
            mask = torch.nn.functional.interpolate(mask, photo.shape[-2:], mode="nearest")
        return self.translator(photo).clamp(0, 1), mask

    def _compared(self, painted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        hole = 1 - mask
        styles = zip(self.features.style(painted * hole), self.features.style(target * hole), strict=True)
        return {
            "difference": l1(painted, target),
            "perceptual": feature_distance(self.features.perceptual(painted), self.features.perceptual(target)),
            "style": sum(l1(gram(a), gram(b)) for a, b in styles),
        }

    def validate(self) -> Score:
        def translate(photo: torch.Tensor, lender: torch.Tensor) -> Translated:
            styled, mask = self._masked(photo, lender)
            inpainted = self.networks["I"](styled * mask).clamp(0, 1)
            return Translated(styled, mask, inpainted, mask * styled + (1 - mask) * inpainted)

        pairs = ValidationPairs(self.validation_photos, self.validation_renders)
        with self.arithmetic():
            return inpainter_score(translate, pairs, self.device)


def _discriminator_loss(net: torch.nn.Module, true: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    return (least_squares(net(true), 1.0) + least_squares(net(fake), 0.0)) / 2
