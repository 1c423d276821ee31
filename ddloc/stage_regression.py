"""Stages C, joint and finetune: those that train the regressor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from dataloader.augmentation import draw_augmentation
from dataloader.batch import Batch
from dataloader.prepare import RawBatch, prepare_for_evaluation, prepare_for_training
from ddloc.attention import LAST_TEMPERATURE, noisy_mask
from ddloc.chain import Chain, Translation, load_translation
from ddloc.losses import cross_entropy, initialisation_loss, kept_share_divergence
from ddloc.options import StageOptions
from ddloc.stage import Moment, Stage, frozen
from ddloc.validation import Score, pose_score
from ddloc.weights import fresh, fresh_regressor, load_best
from loss import LossResult
from runs.record import RunRecord

_JOINT_ADVERSARIAL = 1e-3
# Share of the joint epochs that the discriminator takes part in.
_JUDGED = 2 / 3


class RegressorStage(Stage):
    """C: scene coordinates of photos and of synthetic images, with equal weight."""

    handed_on = ("C",)

    def __init__(self, options: StageOptions, record: RunRecord, project_dir: Path, device: torch.device):
        super().__init__(options, record, project_dir, device)
        self.add("C", self._start())
        self.optimize("C", "C")

    def _start(self) -> torch.nn.Module:
        options = self.options
        return fresh_regressor(
            options.regressor,
            width=options.width,
            tiny=options.tiny,
            statistics=self.statistics,
            network_in=options.network_in,
        )

    def step(self, real: RawBatch, partner: RawBatch, moment: Moment) -> LossResult:
        results = []
        for batch in self._batches(real, partner, moment):
            with self.arithmetic():
                coords = self.networks["C"](batch.images_B3HW)[0]
            results.append(initialisation_loss(coords, batch, self.options.loss))
        result = _sum(*results)
        self.update("C", result.total)
        return result

    def _batches(self, real: RawBatch, partner: RawBatch, moment: Moment) -> list[Batch]:
        """Photos and synthetic images as C takes them; augmented apart, as their sizes may differ: by draws of their own."""
        seed = self.options.seed
        return [self._prepared(real, seed, moment), self._prepared(partner, seed + 1, moment)]

    def _prepared(self, raw: RawBatch, seed: int, moment: Moment) -> Batch:
        options = self.options
        if not options.data_augment:
            return prepare_for_evaluation(raw, self.record.preprocessing, "coord")
        draws = draw_augmentation(
            options.augmentation, seed=seed, epoch=moment.epoch, images_seen=moment.images_seen, indices=raw.indices
        )
        with torch.no_grad():
            return prepare_for_training(raw, self.record.preprocessing, "coord", options.augmentation, draws)

    def chain(self) -> Chain:
        """What a photo goes through with the networks as they are."""
        return Chain(None, self.networks["C"], self.normalise)

    def validate(self) -> Score:
        return pose_score(self.chain(), self.validation_photos, self.device, self.options.precision)


class FineTuningStage(RegressorStage):
    """finetune: C on photos that were translated once and for all, beside the synthetic images of their names."""

    def _start(self) -> torch.nn.Module:
        self.translation = load_translation(self.project_dir, self.device)
        return _unfrozen(load_best(self.project_dir, "joint", "C", self.device))

    def chain(self) -> Chain:
        return Chain(self.translation, self.networks["C"], self.normalise)


class JointStage(RegressorStage):
    """joint: C and A together, behind frozen T and I, before a discriminator of what was painted."""

    handed_on = ("C", "A")

    def __init__(self, options: StageOptions, record: RunRecord, project_dir: Path, device: torch.device):
        super().__init__(options, record, project_dir, device)
        attention = self.add("A", _unfrozen(load_best(project_dir, "A", "A", device)))
        self.translation = Translation(
            load_best(project_dir, "T", "T", device), attention, load_best(project_dir, "I", "I", device)
        )
        self.add("D_synthetic", fresh("D_synthetic", options.width))
        self.optimize("C", "C", "A")
        self.optimize("discriminator", "D_synthetic")

    def _start(self) -> torch.nn.Module:
        return _unfrozen(load_best(self.project_dir, "C", "C", self.device))

    def step(self, real: RawBatch, partner: RawBatch, moment: Moment) -> LossResult:
        judged = moment.epochs_done < _JUDGED * self.options.total_epoch_num
        self.check_even(real)
        C, D = self.networks["C"], self.networks["D_synthetic"]
        of_photo, of_render = self._batches(real, partner, moment)
        photo = self.normalise.inverse(of_photo.images_B3HW).clamp(0, 1)  # jitter may leave the range
        frozen([D], True)
        with self.arithmetic():
            seen = self.translation(photo, lambda scores: noisy_mask(scores, self.noise(scores, moment), LAST_TEMPERATURE))
            painted = self.normalise(seen.inpainted_B3HW)
            coords = C(self.normalise(seen.composed_B3HW))[0], C(of_render.images_B3HW)[0]
            adversarial = _JOINT_ADVERSARIAL * cross_entropy(D(painted), 1.0) if judged else photo.new_zeros(())
        result = _sum(*(initialisation_loss(c, b, self.options.loss) for c, b in zip(coords, (of_photo, of_render))))
        divergence = kept_share_divergence(seen.mask_B1HW, self.options.rho)
        total = result.total + divergence + adversarial
        self.update("C", total)
        frozen([D], False)
        of_discriminator = photo.new_zeros(())
        if judged:
            with self.arithmetic():
                true, fake = D(of_render.images_B3HW), D(painted.detach())
                of_discriminator = (cross_entropy(true, 1.0) + cross_entropy(fake, 0.0)) / 2
            self.update("discriminator", of_discriminator)
        figures = {"divergence": divergence, "kept": seen.mask_B1HW.mean(), "adversarial": adversarial}
        return replace(result, total=total, regression={**result.regression, **figures, "discriminator": of_discriminator})

    def chain(self) -> Chain:
        return Chain(self.translation, self.networks["C"], self.normalise)


def _unfrozen(net: torch.nn.Module) -> torch.nn.Module:
    return net.train().requires_grad_(True)


def _sum(a: LossResult, b: LossResult) -> LossResult:
    """Losses added, figures averaged over both domains."""
    return LossResult(
        a.total + b.total,
        (a.valid_rate + b.valid_rate) / 2,
        {name: (value + b.regression[name]) / 2 for name, value in a.regression.items()},
    )
