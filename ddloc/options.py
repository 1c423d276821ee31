"""What a stage of DDLoc can be told: declared once, as flags, checks and record."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from dataloader.augmentation import AugmentationOptions
from dataloader.choice import REAL_DATA_DOMAINS
from ddloc.regressor import REGRESSORS
from loss import LossOptions
from records.options import LARGEST_SEED, between, option, positive
from runs.device import PRECISIONS

IMG_NORMALIZE = ("scene", "pure", "urban", "nature")


@dataclass(frozen=True)
class StageNumbers:
    """The published numbers of a stage.

    Attributes:
        constant_share: of the epochs, before the learning rate falls linearly to zero.
        paired_share: of the epochs, at the end, whose synthetic images are those of the photos' names.
        betas: of Adam.
    """

    batch_size: int
    epochs: int
    learningrate: float
    constant_share: float
    paired_share: float
    betas: tuple[float, float]


_ADAM, _GAN = (0.9, 0.999), (0.5, 0.999)
STAGES: dict[str, StageNumbers] = {
    "C": StageNumbers(60, 1500, 1e-4, 0.4, 0.0, _ADAM),
    "T": StageNumbers(2, 200, 5e-5, 0.6, 0.25, _GAN),
    "A": StageNumbers(2, 200, 5e-5, 0.6, 0.25, _GAN),
    "I": StageNumbers(2, 200, 1e-4, 0.6, 0.0, _GAN),
    "joint": StageNumbers(4, 100, 1e-4, 0.6, 1.0, _GAN),
    "finetune": StageNumbers(16, 500, 1e-4, 0.4, 1.0, _ADAM),
}
AUGMENTED = ("C", "joint", "finetune")


def _width(name: str, value: int) -> None:
    if value < 8 or value % 8:
        raise ValueError(f"{name} must be a multiple of 8, got {value}")


def _from_environment(variable: str, default: str):
    return lambda: Path(os.environ.get(variable) or default)


@dataclass(frozen=True)
class DDLocAugmentation(AugmentationOptions):
    """The published augmentation: factors of brightness and contrast from 0 to 2. Poses turn with the images."""

    jitter: float = option(1.0, check=between(0, 1), help="brightness and contrast jitter")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the stages of one DDLoc lie; shared by all its commands."""

    scene: str = option(positional=True, help="scene name: the folder below the data sets folder")
    datasets_dir: Path = option(
        default_factory=_from_environment("DATASETS_DIR", "datasets"),
        decides=False,
        help="folder of the scenes (env DATASETS_DIR)",
    )
    exp_dir: Path = option(
        default_factory=_from_environment("OUTPUT_DIR", "output"),
        decides=False,
        help="folder of the experiments (env OUTPUT_DIR)",
    )
    project_name: str = option("", decides=False, help="experiment below it that holds the stages (default: ddloc-SCENE)")
    device: str = option("auto", decides=False, help="auto, cpu, cuda, cuda:N")

    @property
    def project_dir(self) -> Path:
        """Folder of the stages."""
        return self.exp_dir / (self.project_name or f"ddloc-{self.scene}")

    @property
    def scene_dir(self) -> Path:
        return self.datasets_dir / self.scene


@dataclass(frozen=True, kw_only=True)
class _StageName:
    """Comes before the scene on the command line, as the bases of a dataclass give their fields from the last one on."""

    stage: str = option(positional=True, choices=STAGES, help="what is trained")


@dataclass(frozen=True, kw_only=True)
class StageOptions(Place, _StageName):
    """One stage."""

    real_data_domain: str = option("in_place", choices=REAL_DATA_DOMAINS, help="which flight the real photos are of")
    data_ispaired: bool = option(False, help="every synthetic image is that of the photo's name, from the first epoch on")
    paired_share: float | None = option(
        None, check=between(0, 1), help="share of the epochs, at the end, that are paired so (default: as published)"
    )
    img_normalize: str = option(
        "scene",
        choices=IMG_NORMALIZE,
        help="colours that the regressor is normalised by: the scene's, a published scene's, or none (pure)",
    )
    image_height: int = option(480, check=positive, help="shorter side of the images, px")

    regressor: str = option(
        "unet", choices=REGRESSORS, help="the published U-Net, or this project's network", group="network"
    )
    tiny: bool = option(False, help="of transposenet: 128 channels instead of 512")
    # Its content stands in the record as a parent.
    network_in: Path | None = option(None, decides=False, help="stage C with transposenet: weights to start from")
    width: int = option(64, check=_width, help="channels of the first layers; 64 as published")

    batch_size: int | None = option(
        None, check=positive, help="photos per step (default: as published)", group="optimisation"
    )
    total_epoch_num: int | None = option(
        None, flags=("-e",), check=positive, help="passes over the photos (default: as published)"
    )
    learningrate: float | None = option(None, flags=("-lr",), check=positive, help="at its highest (default: as published)")
    save_steps: int = option(10, check=positive, help="epochs from one checkpoint, with its validation, to the next")
    isbuffer: bool = option(False, help="T, A: discriminators see fakes of earlier steps, too")
    rho: float = option(0.9, check=between(0.01, 0.99), help="A, joint: share of the pixels that masks are to keep")
    data_augment: bool = option(False, help="C, joint, finetune: augmented images")
    augmentation: DDLocAugmentation = field(default_factory=DDLocAugmentation)
    loss: LossOptions = field(default_factory=LossOptions)
    precision: str = option("auto", choices=PRECISIONS, help="arithmetic; auto is bf16 where the device computes in it")
    seed: int = option(2021, check=between(0, LARGEST_SEED), help="of everything that is random")
    cache_gb: float = option(
        4.0, check=between(0, 1e6), decides=False, help="memory for decoded images of all sections, GiB"
    )
    num_workers: int = option(0, check=between(0, 1024), decides=False, help="loader processes")
    auto_resume: bool = option(False, decides=False, help="continue the stage where it stopped")

    @property
    def numbers(self) -> StageNumbers:
        return STAGES[self.stage]

    def completed(self) -> StageOptions:
        """With the stage's published numbers where nothing was said.

        Raises:
            ValueError: a flag that has no effect in this stage.
        """
        if self.network_in is not None and (self.stage != "C" or self.regressor != "transposenet"):
            raise ValueError("--network_in starts stage C with --regressor transposenet only")
        if self.data_augment and self.stage not in AUGMENTED:
            raise ValueError(f"--data_augment has an effect in stages {', '.join(AUGMENTED)} only, not in {self.stage}")
        numbers, paired = self.numbers, self.paired_share
        if paired is None:
            paired = 1.0 if self.data_ispaired else numbers.paired_share
        elif self.data_ispaired and paired != 1:
            raise ValueError(f"--data_ispaired and --paired_share {paired:g} contradict each other")
        return replace(
            self,
            data_ispaired=paired == 1.0,
            paired_share=paired,
            batch_size=self.batch_size or numbers.batch_size,
            total_epoch_num=self.total_epoch_num or numbers.epochs,
            learningrate=self.learningrate or numbers.learningrate,
        )

    def rate(self, epochs_done: float) -> float:
        """Learning rate: constant for the stage's first share of the epochs, then linearly to zero."""
        left = 1.0 - epochs_done / self.total_epoch_num
        return self.learningrate * min(1.0, left / (1.0 - self.numbers.constant_share))
