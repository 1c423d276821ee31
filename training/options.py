"""What a training run can be told: declared once, as flags, checks and record."""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from dataloader.augmentation import AugmentationOptions
from dataloader.choice import REAL_DATA_DOMAINS, scene_folder
from loss import LossOptions, PoseLossOptions
from networks import Architecture, architecture_of, load_state_dict
from records import options as declared
from records.options import LARGEST_SEED, between, option, positive
from runs.device import PRECISIONS
from tasks import TASKS, UNCERTAINTIES
from training.optimizer import OPTIMIZERS
from training.presets import PRESETS
from training.schedule import LR_SCHEDULES

Options = TypeVar("Options", bound="TrainingOptions")


def _from_environment(variable: str, default: str) -> Any:
    return lambda: Path(os.environ.get(variable) or default)


def _at_least_zero(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} cannot be negative, got {value}")


def _share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"{name} must lie in (0, 1], got {value:g}")


@dataclass(frozen=True)
class TrainingOptions:
    """One training run."""

    scene: str = option(positional=True, help="scene name: the folder below the data sets folder")
    task: str = option(choices=TASKS, help="what the network predicts", group="data")
    preset: str | None = option(
        None, choices=PRESETS, help="values of the options that are not given; fast trains in minutes, see docs/speed.md"
    )
    datasets_dir: Path = option(
        default_factory=_from_environment("DATASETS_DIR", "datasets"),
        decides=False,
        help="folder of the scenes (env DATASETS_DIR)",
    )
    sim_data_chunk: float = option(1.0, check=between(0, 1), help="share of the synthetic images, 0: none")
    real_data_chunk: float = option(1.0, check=between(0, 1), help="share of the real-synthetic pairs, 0: none")
    real_data_domain: str = option("in_place", choices=REAL_DATA_DOMAINS, help="which flight the real photos are of")
    real_only: bool = option(False, help="the real photos without their synthetic partners")
    real_share: float | None = option(
        None,
        check=between(0, 1),
        help="share of real photos among the images of an epoch, which repeats few photos "
        "among many synthetic images (default: every image once)",
    )
    batch_size: int = option(4, check=positive, help="images per step, of all processes together")
    grayscale: bool = option(False, help="train on grey images")
    # The height that is used stands in the record's preprocessing.
    image_height: int | None = option(
        None,
        check=positive,
        decides=False,
        help="shorter side of the network input, px (default: as the starting weights were trained, else 480)",
    )
    num_workers: int | None = option(
        None,
        check=_at_least_zero,
        decides=False,
        help="loader processes (default: threads of this process on a CPU, up to 8 processes beside a GPU)",
    )
    cache_gb: float = option(
        4.0,
        check=_at_least_zero,
        decides=False,
        help="memory of this machine for decoded images, GiB, shared by the loaders; the rest is decoded each epoch",
    )
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)

    # Its content stands in the record as a parent.
    network_in: Path | None = option(None, decides=False, help="weights to start from", group="network")
    tiny: bool = option(False, help="128 channels instead of 512")
    fullsize: bool = option(False, help="predict at image size")
    uncertainty: str = option("none", choices=UNCERTAINTIES, lower=True, help="model of the uncertainty")

    epochs: int = option(50, flags=("-e",), check=positive, help="passes over the data", group="optimisation")
    optimizer: str = option(
        "adam", choices=OPTIMIZERS, help="adam as published, or muon, which needs a fraction of the images"
    )
    learningrate: float = option(2e-4, flags=("-lr",), check=positive, help="at its highest")
    start_scale: float | None = option(
        None,
        check=_share,
        help="zoom of the first half of the images, on top of --scale_range: at 0.5 each of them costs less than half "
        "(default: full size throughout)",
    )
    no_lr_scheduling: bool = option(False, decides=False, help="constant rate, unless --lr_schedule says otherwise")
    lr_schedule: str | None = option(
        None,
        choices=LR_SCHEDULES,
        help="step halves the rate at epochs 50 and 100 (the default), onecycle warms up and decays",
    )
    depth_relative: bool = option(
        False, help="--inittolerance and --mindepth are multiples of the scene's mean depth, not metres"
    )
    loss: LossOptions = field(default_factory=LossOptions)
    device: str = option("auto", decides=False, help="auto, cpu, cuda, cuda:N")
    precision: str = option("auto", choices=PRECISIONS, help="arithmetic; auto is bf16 where the device computes in it")
    compile: bool = option(
        False,
        decides=False,
        help="the network through torch.compile, which pays in long runs on a GPU",
    )
    seed: int = option(2021, check=between(0, LARGEST_SEED), help="of everything that is random")

    session: str = option("", flags=("-sid",), help="label that becomes part of the run's name", group="run")
    output_dir: Path = option(
        default_factory=_from_environment("OUTPUT_DIR", "output"),
        decides=False,
        help="folder of the logs and the latest weights (env OUTPUT_DIR)",
    )
    ckpt_dir: Path | None = option(
        None, decides=False, help="folder of the numbered checkpoints (default: the output folder)"
    )
    auto_resume: bool = option(False, decides=False, help="continue a run of the same name where it stopped")
    epoch_plus: bool = option(False, decides=False, help="continue a finished run of the same name with fewer epochs")
    debug: bool = option(False, decides=False, help="show every step on the terminal's bar and in TensorBoard")

    @property
    def scene_dir(self) -> Path:
        """Folder of the scene's sections."""
        return scene_folder(self.datasets_dir, self.scene, self.task, self.fullsize)

    @property
    def stage(self) -> str:
        """What kind of training it is; see `runs.record.STAGES`."""
        return "pretrain" if self.network_in is None else "finetune"

    @property
    def starting_weights(self) -> dict[str, Path]:
        """The weights files that the network is put together from, by the flag that names them."""
        return {} if self.network_in is None else {"--network_in": self.network_in}

    @property
    def architecture(self) -> Architecture:
        """The network that the flags ask for."""
        return Architecture.for_task(
            self.task,
            uncertainty=self.uncertainty,
            tiny=self.tiny,
            fullsize=self.fullsize,
            in_channels=1 if self.grayscale else 3,
        )


@dataclass(frozen=True, kw_only=True)
class DecoderOptions(TrainingOptions):
    """Training of a fused network: several trained encoders before one decoder."""

    sim_data_chunk: float = option(0.0, check=between(0, 1), help="share of the synthetic images, 0: none")
    encoders: tuple[str, ...] = option(
        ("coord", "depth", "normal"),
        choices=TASKS,
        help="tasks whose encoders are fused; coord is always one of them",
        group="encoders",
    )
    # Their contents stand in the record as parents.
    coord_weight: Path = option(decides=False, help="weights of the coord encoder; they initialise the decoder too")
    depth_weight: Path = option(decides=False, help="weights of the depth encoder, used when it is listed")
    normal_weight: Path = option(decides=False, help="weights of the normal encoder, used when it is listed")
    semantics_weight: Path = option(decides=False, help="weights of the semantics encoder, used when it is listed")
    reuse_coord_encoder: bool = option(False, help="the coord encoder is one of the fused ones")
    unfreeze_coord_encoder: bool = option(False, help="and it trains on, while the others stay as they are")

    @property
    def stage(self) -> str:
        return "decoder"

    @property
    def fused(self) -> tuple[str, ...]:
        """Tasks of the fused encoders, in their order in the network."""
        return tuple(task for task in self.encoders if task != "coord" or self.reuse_coord_encoder)

    @property
    def frozen(self) -> tuple[int, ...]:
        """Numbers, from 1, of the fused encoders that do not train."""
        trained = "coord" if self.unfreeze_coord_encoder else None
        return tuple(number for number, task in enumerate(self.fused, 1) if task != trained)

    def weight_of(self, task: str) -> Path:
        """The weights file of a task's encoder."""
        return getattr(self, f"{task}_weight")

    @property
    def starting_weights(self) -> dict[str, Path]:
        if self.network_in is not None:
            return {"--network_in": self.network_in}
        return {f"--{task}_weight": self.weight_of(task) for task in self.encoders}

    @property
    def architecture(self) -> Architecture:
        return replace(super().architecture, num_encoders=len(self.fused))


@dataclass(frozen=True, kw_only=True)
class RefinementOptions(TrainingOptions):
    """Training of a coord network, single or fused, by the poses that come out of its coordinates."""

    sim_data_chunk: float = option(0.0, check=between(0, 1), help="share of the synthetic images, 0: none")
    # Its content stands in the record as a parent.
    network_in: Path = option(decides=False, help="weights to start from", group="network")
    freeze_encoders: bool = option(False, help="only the decoder trains on")
    pose: PoseLossOptions = field(default_factory=PoseLossOptions)

    @property
    def stage(self) -> str:
        return "e2e"

    @property
    def architecture(self) -> Architecture:
        """As the flags say; how many encoders are fused, the weights say."""
        found = architecture_of(load_state_dict(self.network_in))
        return replace(super().architecture, num_encoders=found.num_encoders)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the single-task training command."""
    declared.add_options(parser, TrainingOptions)


def add_decoder_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the decoder training command."""
    declared.add_options(parser, DecoderOptions)


def add_refinement_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the refinement command."""
    declared.add_options(parser, RefinementOptions)


def options_from(args: argparse.Namespace) -> TrainingOptions:
    """Checks the arguments of the single-task command; ValueError names the flag, the value and the choices."""
    return _completed(_from(TrainingOptions, args))


def decoder_options_from(args: argparse.Namespace) -> DecoderOptions:
    """Checks the arguments of the decoder command; ValueError names the flag, the value and the choices."""
    options = _from(DecoderOptions, args)
    if "coord" not in options.encoders:
        raise ValueError(f"--encoders must list coord, got {' '.join(options.encoders)}")
    if options.unfreeze_coord_encoder and not options.reuse_coord_encoder:
        raise ValueError("--unfreeze_coord_encoder needs --reuse_coord_encoder")
    if options.real_data_chunk > 0 and options.sim_data_chunk > 0:
        raise ValueError(
            f"--real_data_chunk {options.real_data_chunk:g} needs --sim_data_chunk 0, got {options.sim_data_chunk:g}"
        )
    others = sorted(set(options.encoders) - {"coord"})
    return _completed(replace(options, encoders=("coord", *others)))


def refinement_options_from(args: argparse.Namespace) -> RefinementOptions:
    """Checks the arguments of the refinement command; ValueError names the flag, the value and the choices."""
    options = _completed(_from(RefinementOptions, args))
    if options.task != "coord":
        raise ValueError(f"poses come out of the task coord, not of {options.task}")
    if not options.network_in.is_file():
        raise FileNotFoundError(f"--network_in: weights file not found: {options.network_in}")
    return options


def _from(cls: type[Options], args: argparse.Namespace) -> Options:
    """What the command line says; what it does not say, the preset says, then the declaration."""
    return declared.options_from(cls, args, defaults=PRESETS.get(args.preset, {}))


def _completed(options: Options) -> Options:
    """What follows from several flags together."""
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
