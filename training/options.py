"""What a training run can be told: the command line of the training commands, checked once."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from dataloader.choice import REAL_DATA_DOMAINS, scene_folder
from dataloader.prepare import AugmentationOptions
from loss import LossOptions
from tasks import TASKS, UNCERTAINTIES, task_named
from training.optimizer import OPTIMIZERS
from training.schedule import LR_SCHEDULES


@dataclass(frozen=True)
class TrainingOptions:
    """One training run, see `add_arguments` for the meaning and the defaults of each field."""

    scene: str
    task: str
    datasets_dir: Path
    output_dir: Path
    ckpt_dir: Path | None
    batch_size: int
    grayscale: bool
    real_data_domain: str
    real_data_chunk: float
    real_only: bool
    real_share: float | None
    sim_data_chunk: float
    epoch_plus: bool
    network_in: Path | None
    tiny: bool
    fullsize: bool
    epochs: int
    optimizer: str
    learningrate: float
    lr_schedule: str
    session: str
    auto_resume: bool
    debug: bool
    uncertainty: str
    image_height: int | None
    num_workers: int | None
    device: str
    precision: str
    seed: int
    depth_relative: bool
    loss: LossOptions
    augmentation: AugmentationOptions

    @property
    def scene_dir(self) -> Path:
        """Folder of the scene's sections."""
        return scene_folder(self.datasets_dir, self.scene, self.task, self.fullsize)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments shared by the training commands."""
    loss, augmentation = LossOptions(), AugmentationOptions()
    add = parser.add_argument
    add("scene", help="scene name: the folder below the data sets folder")
    add("--task", required=True, help=f"one of {', '.join(sorted(TASKS))}")

    data = parser.add_argument_group("data")
    data.add_argument("--datasets_dir", type=Path, default=Path(os.environ.get("DATASETS_DIR") or "datasets"),
                      help="folder of the scenes (default: environment DATASETS_DIR, else datasets)")
    data.add_argument("--batch_size", type=int, default=4)
    data.add_argument("--grayscale", action="store_true", help="train on grey images")
    data.add_argument("--real_data_domain", default="in_place", help=f"one of {', '.join(REAL_DATA_DOMAINS)}")
    data.add_argument("--real_data_chunk", type=float, default=1.0, help="share of the real-synthetic pairs, 0: none")
    data.add_argument("--real_only", action="store_true", help="the real photos without their synthetic partners")
    data.add_argument("--real_share", type=float, default=None,
                      help="share of real photos among the drawn images; default: every image once an epoch")
    data.add_argument("--sim_data_chunk", type=float, default=1.0, help="share of train_sim, 0: none")
    data.add_argument("--image_height", type=int, default=None,
                      help="shorter side of the network input in px (default: that of --network_in, else 480)")
    data.add_argument("--num_workers", type=int, default=None,
                      help="loader processes; 0 decodes in this process and keeps images in memory (default: 0 on a CPU)")
    data.add_argument("--jitter", type=float, default=augmentation.brightness,
                      help="brightness and contrast jitter (default %(default)s)")
    data.add_argument("--colour_jitter", type=float, default=augmentation.colour,
                      help="additional gain jitter per colour channel (default %(default)s)")
    data.add_argument("--shading", type=float, default=augmentation.shading,
                      help="smooth brightness and colour changes over the image (default %(default)s)")
    data.add_argument("--max_angle", type=float, default=augmentation.angle_deg, metavar="DEG",
                      help="rotation augmentation, +- degrees (default %(default)s)")
    data.add_argument("--max_tilt", type=float, default=augmentation.tilt_deg, metavar="DEG",
                      help="tilt augmentation about both image axes, +- degrees (default %(default)s)")
    data.add_argument("--max_shift", type=float, default=augmentation.shift,
                      help="shift augmentation, +- share of the image size (default %(default)s)")
    data.add_argument("--scale_range", type=float, nargs=2, default=list(augmentation.scale), metavar=("LOW", "HIGH"),
                      help="scale augmentation (default 0.667 1.5)")

    network = parser.add_argument_group("network")
    network.add_argument("--network_in", type=Path, default=None, help="weights to start from")
    network.add_argument("--tiny", action="store_true", help="128 channels instead of 512")
    network.add_argument("--fullsize", action="store_true", help="predict at image size")
    network.add_argument("--uncertainty", type=str.lower, default="mle", help="mle or none")

    optimisation = parser.add_argument_group("optimisation")
    optimisation.add_argument("--epochs", "-e", type=int, default=50)
    optimisation.add_argument("--optimizer", default="adam",
                              help="adam (as published) or muon, which needs a fraction of the images")
    optimisation.add_argument("--learningrate", "-lr", type=float, default=2e-4)
    optimisation.add_argument("--no_lr_scheduling", action="store_true", help="constant rate, unless --lr_schedule says otherwise")
    optimisation.add_argument("--lr_schedule", default=None,
                              help="step: halved at epochs 50 and 100 (default); constant; onecycle: warm-up, then "
                              "cosine decay to the last epoch")
    optimisation.add_argument("--inittolerance", "-itol", type=float, default=loss.inittolerance, help="metres")
    optimisation.add_argument("--mindepth", "-mind", type=float, default=loss.mindepth, help="metres")
    optimisation.add_argument("--depth_relative", action="store_true",
                              help="--inittolerance and --mindepth are multiples of the scene's mean depth, not metres")
    optimisation.add_argument("--softclamp", "-sc", type=float, default=loss.softclamp, help="pixels")
    optimisation.add_argument("--hardclamp", "-hc", type=float, default=loss.hardclamp, help="pixels, metres or degrees")
    optimisation.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    optimisation.add_argument("--precision", default="auto",
                              help="auto (bf16 where the device computes in it), bf16, float32")
    optimisation.add_argument("--seed", type=int, default=2021)

    run = parser.add_argument_group("run")
    run.add_argument("--session", "-sid", default="", help="label that becomes part of the run's name")
    run.add_argument("--output_dir", type=Path, default=Path(os.environ.get("OUTPUT_DIR") or "output"),
                     help="folder of the logs (default: environment OUTPUT_DIR, else output)")
    run.add_argument("--ckpt_dir", type=Path, default=None, help="folder of the checkpoints (default: the output folder)")
    run.add_argument("--auto_resume", action="store_true", help="continue a run of the same name where it stopped")
    run.add_argument("--epoch_plus", action="store_true", help="continue a finished run of the same name with fewer epochs")
    run.add_argument("--debug", action="store_true", help="log every step")


def options_from(args: argparse.Namespace) -> TrainingOptions:
    """Checks the parsed arguments; ValueError names the flag, the value and the choices."""
    task = task_named(args.task)
    if args.uncertainty not in UNCERTAINTIES:
        raise ValueError(f"unknown --uncertainty {args.uncertainty!r}; choose from {list(UNCERTAINTIES)}")
    if args.uncertainty not in task.uncertainties:
        raise ValueError(f"task {args.task} supports --uncertainty {' or '.join(task.uncertainties)} only")
    if task.fullsize_only and not args.fullsize:
        raise ValueError(f"task {args.task} needs --fullsize")
    for name in ("batch_size", "epochs", "learningrate", "mindepth", "softclamp", "hardclamp", "inittolerance"):
        if not getattr(args, name) > 0:
            raise ValueError(f"--{name} must be positive, got {getattr(args, name)}")
    if args.optimizer not in OPTIMIZERS:
        raise ValueError(f"unknown --optimizer {args.optimizer!r}; choose from {list(OPTIMIZERS)}")
    if args.auto_resume and args.epoch_plus:
        raise ValueError("--auto_resume and --epoch_plus exclude each other")
    schedule = args.lr_schedule or ("constant" if args.no_lr_scheduling else "step")
    if schedule not in LR_SCHEDULES:
        raise ValueError(f"unknown --lr_schedule {schedule!r}; choose from {sorted(LR_SCHEDULES)}")
    for name, most in (
        ("jitter", 1.0), ("colour_jitter", 1.0), ("shading", 0.6), ("max_angle", 180.0), ("max_tilt", 30.0), ("max_shift", 0.5),
    ):
        if not 0 <= getattr(args, name) <= most:
            raise ValueError(f"--{name} must lie in [0, {most:g}], got {getattr(args, name)}")
    low, high = args.scale_range
    if not 0 < low <= high:
        raise ValueError(f"--scale_range must be two increasing positive numbers, got {low} {high}")
    ckpt_dir = args.ckpt_dir if args.ckpt_dir and str(args.ckpt_dir) not in ("", ".") else None
    plain = {k: v for k, v in vars(args).items() if k in TrainingOptions.__dataclass_fields__}
    plain.update(
        ckpt_dir=ckpt_dir,
        lr_schedule=schedule,
        loss=LossOptions(args.inittolerance, args.mindepth, args.softclamp, args.hardclamp),
        augmentation=AugmentationOptions(
            (low, high), args.max_angle, brightness=args.jitter, contrast=args.jitter, colour=args.colour_jitter,
            shift=args.max_shift, tilt_deg=args.max_tilt, shading=args.shading,
        ),
    )
    return TrainingOptions(**plain)
