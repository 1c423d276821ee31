"""What a training run can be told: declared once, as flags, checks and record."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataloader.augmentation import AugmentationOptions
from dataloader.choice import REAL_DATA_DOMAINS, scene_folder
from loss import LossOptions
from records import options as declared
from records.options import between, option, positive
from runs.device import PRECISIONS
from tasks import TASKS, UNCERTAINTIES
from training.optimizer import OPTIMIZERS
from training.schedule import LR_SCHEDULES


def _from_environment(variable: str, default: str) -> Any:
    return lambda: Path(os.environ.get(variable) or default)


def _at_least_zero(name: str, value: int) -> None:
    if value < 0:
        raise ValueError(f"{name} cannot be negative, got {value}")


@dataclass(frozen=True)
class TrainingOptions:
    """One training run."""

    scene: str = option(positional=True, help="scene name: the folder below the data sets folder")
    task: str = option(choices=TASKS, help="what the network predicts", group="data")
    datasets_dir: Path = option(
        default_factory=_from_environment("DATASETS_DIR", "datasets"), decides=False, help="folder of the scenes (env DATASETS_DIR)"
    )
    sim_data_chunk: float = option(1.0, check=between(0, 1), help="share of the synthetic images, 0: none")
    real_data_chunk: float = option(1.0, check=between(0, 1), help="share of the real-synthetic pairs, 0: none")
    real_data_domain: str = option("in_place", choices=REAL_DATA_DOMAINS, help="which flight the real photos are of")
    real_only: bool = option(False, help="the real photos without their synthetic partners")
    real_share: float | None = option(
        None, check=between(0, 1), help="share of real photos among the images of an epoch, which repeats few photos "
        "among many synthetic images (default: every image once)",
    )
    batch_size: int = option(4, check=positive, help="images per step")
    grayscale: bool = option(False, help="train on grey images")
    # The height that is used stands in the record's preprocessing.
    image_height: int | None = option(
        None, check=positive, decides=False, help="shorter side of the network input, px (default: as the starting weights "
        "were trained, else 480)",
    )
    num_workers: int | None = option(
        None, check=_at_least_zero, decides=False, help="loader processes (default: threads of this process on a CPU, up to 8 "
        "processes beside a GPU)",
    )
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)

    # Its content stands in the record as a parent.
    network_in: Path | None = option(None, decides=False, help="weights to start from", group="network")
    tiny: bool = option(False, help="128 channels instead of 512")
    fullsize: bool = option(False, help="predict at image size")
    uncertainty: str = option("none", choices=UNCERTAINTIES, lower=True, help="model of the uncertainty")

    epochs: int = option(50, flags=("-e",), check=positive, help="passes over the data", group="optimisation")
    optimizer: str = option("adam", choices=OPTIMIZERS, help="adam as published, or muon, which needs a fraction of the images")
    learningrate: float = option(2e-4, flags=("-lr",), check=positive, help="at its highest")
    no_lr_scheduling: bool = option(False, decides=False, help="constant rate, unless --lr_schedule says otherwise")
    lr_schedule: str | None = option(
        None, choices=LR_SCHEDULES, help="step halves the rate at epochs 50 and 100 (the default), onecycle warms up and decays"
    )
    depth_relative: bool = option(
        False, help="--inittolerance and --mindepth are multiples of the scene's mean depth, not metres"
    )
    loss: LossOptions = field(default_factory=LossOptions)
    device: str = option("auto", decides=False, help="auto, cpu, cuda, cuda:N")
    precision: str = option("auto", choices=PRECISIONS, help="arithmetic; auto is bf16 where the device computes in it")
    seed: int = option(2021, help="of everything that is random")

    session: str = option("", flags=("-sid",), help="label that becomes part of the run's name", group="run")
    output_dir: Path = option(
        default_factory=_from_environment("OUTPUT_DIR", "output"), decides=False, help="folder of the logs and the latest "
        "weights (env OUTPUT_DIR)",
    )
    ckpt_dir: Path | None = option(None, decides=False, help="folder of the numbered checkpoints (default: the output folder)")
    auto_resume: bool = option(False, decides=False, help="continue a run of the same name where it stopped")
    epoch_plus: bool = option(False, decides=False, help="continue a finished run of the same name with fewer epochs")
    debug: bool = option(False, decides=False, help="show every step on the terminal's bar and in TensorBoard")

    @property
    def scene_dir(self) -> Path:
        """Folder of the scene's sections."""
        return scene_folder(self.datasets_dir, self.scene, self.task, self.fullsize)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments shared by the training commands."""
    declared.add_options(parser, TrainingOptions)


def options_from(args: argparse.Namespace) -> TrainingOptions:
    """Checks the parsed arguments; ValueError names the flag, the value and the choices."""
    options = declared.options_from(TrainingOptions, args)
    task = TASKS[options.task]
    if options.uncertainty not in task.uncertainties:
        raise ValueError(f"task {options.task} supports --uncertainty {' or '.join(task.uncertainties)} only")
    if task.fullsize_only and not options.fullsize:
        raise ValueError(f"task {options.task} needs --fullsize")
    if options.auto_resume and options.epoch_plus:
        raise ValueError("--auto_resume and --epoch_plus exclude each other")
    without_folder = options.ckpt_dir is None or str(options.ckpt_dir) in ("", ".")
    return replace(
        options,
        lr_schedule=options.lr_schedule or ("constant" if options.no_lr_scheduling else "step"),
        ckpt_dir=None if without_folder else options.ckpt_dir,
    )
