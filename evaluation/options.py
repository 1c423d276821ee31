"""What an evaluation can be told: the arguments of `test_single_task.py`, checked once."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from dataloader.choice import scene_folder
from evaluation.checkpoints import CheckpointFilter
from evaluation.solving import SOLVERS, SolverOptions
from tasks import TASKS, UNCERTAINTIES, task_named

SHORT_FLAGS = ("-h", "-sid", "-hyps", "-t", "-ia", "-maxerrr")
DEFAULT_SECTIONS = ("val_drone_sim", "val_drone_real")


@dataclass(frozen=True)
class EvaluationOptions:
    """One evaluation; see `add_arguments` for the meaning of the fields.

    Attributes:
        asserted: what flags say of the architecture, by field of `Architecture`; a contradiction is an error.
        image_height: px; None: as the weights were trained, else 480.
    """

    scene: str
    task: str
    sections: tuple[str, ...]
    datasets_dir: Path
    network_in: Path | None
    search_dir: Path | None
    criteria: CheckpointFilter
    asserted: dict[str, object]
    solver: SolverOptions
    image_height: int | None
    num_workers: int
    plot: bool
    save_pred: bool
    overview: Path | None

    @property
    def scene_dir(self) -> Path:
        """Folder of the scene's sections."""
        return scene_folder(self.datasets_dir, self.scene, self.task, bool(self.asserted.get("fullsize")))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the test command."""
    add = parser.add_argument
    add("scene", help="scene name: the folder below the data sets folder")
    add("--task", required=True, help=f"one of {', '.join(sorted(TASKS))}")
    data = parser.add_argument_group("data")
    data.add_argument("--section", nargs="+", default=list(DEFAULT_SECTIONS), metavar="S",
                      help="sections, or groups: test_real_all real_all test_sim_all sim_all (default %(default)s)")
    data.add_argument("--datasets_dir", type=Path, default=Path(os.environ.get("DATASETS_DIR") or "datasets"),
                      help="folder of the scenes (default: environment DATASETS_DIR, else datasets)")
    data.add_argument("--image_height", type=int, default=None,
                      help="shorter side of the network input in px (default: as in training, else 480)")
    data.add_argument("--num_workers", type=int, default=0, help="loader processes (default %(default)s)")

    weights = parser.add_argument_group("weights", "the architecture is read from the weights; flags only assert it")
    weights.add_argument("--network_in", type=Path, default=None,
                         help="weights file, or folder: its model.net and ckpt_iter*.net")
    weights.add_argument("--search_dir", type=Path, default=None, help="search this folder and its subfolders instead")
    weights.add_argument("--keywords", nargs="+", action="extend", default=[], metavar="K",
                         help="all must occur in the path of the weights' folder; with a leading !, must not")
    weights.add_argument("--session", "-sid", default="", help="the run's session: -sSESSION must occur in that path")
    weights.add_argument("--min_ckpt_iter", type=int, default=None, help="only checkpoints beyond this iteration")
    weights.add_argument("--max_ckpt_iter", type=int, default=None, help="only checkpoints before this iteration")
    weights.add_argument("--grayscale", action="store_true", help="the network takes grey images")
    weights.add_argument("--tiny", action="store_true", help="the network is the small one")
    weights.add_argument("--fullsize", action="store_true", help="the network predicts at image size")
    weights.add_argument("--uncertainty", type=str.lower, default=None, help="the network's uncertainty, mle or none")

    solver = SolverOptions()
    solving = parser.add_argument_group("pose solver (task coord)")
    solving.add_argument("--hypotheses", "-hyps", type=int, default=solver.hypotheses, help="default %(default)s")
    solving.add_argument("--threshold", "-t", type=float, default=solver.threshold_px,
                         help="inlier threshold in px (default %(default)s)")
    solving.add_argument("--inlieralpha", "-ia", type=float, default=solver.inlier_alpha, help="default %(default)s")
    solving.add_argument("--maxpixelerror", "-maxerrr", type=float, default=solver.max_error_px,
                         help="clamp of the reprojection error in px (default %(default)s)")
    solving.add_argument("--solver", default=solver.solver,
                         help=f"one of {', '.join(SOLVERS)} (default: weighted by the predicted uncertainty)")
    solving.add_argument("--seed", type=int, default=solver.seed, help="default %(default)s")

    output = parser.add_argument_group("output, beside the weights")
    output.add_argument("--plot", action="store_true", help="pictures of every image's prediction and error")
    output.add_argument("--save_pred", action="store_true", help="predictions as .npz")
    output.add_argument("--overview", type=Path, default=None, metavar="PICTURE",
                        help="one picture of the whole: predictions, errors, track (one checkpoint and section, coord)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default %(default)s)")


def options_from(args: argparse.Namespace) -> EvaluationOptions:
    """Checks the parsed arguments; ValueError names the flag, the value and the choices."""
    task_named(args.task)
    if args.uncertainty not in (None, *UNCERTAINTIES):
        raise ValueError(f"unknown --uncertainty {args.uncertainty!r}; choose from {list(UNCERTAINTIES)}")
    if args.overview is not None and (args.task != "coord" or len(args.section) != 1):
        raise ValueError("--overview draws one section of the coord task")
    if args.num_workers < 0:
        raise ValueError(f"--num_workers cannot be {args.num_workers}")
    asserted: dict[str, object] = {}
    if args.grayscale:
        asserted["in_channels"] = 1
    for name in ("tiny", "fullsize"):
        if getattr(args, name):
            asserted[name] = True
    if args.uncertainty is not None:
        asserted["uncertainty"] = args.uncertainty
    keywords = [*args.keywords, *([f"-s{args.session}"] if args.session else [])]
    return EvaluationOptions(
        scene=args.scene,
        task=args.task,
        sections=tuple(args.section),
        datasets_dir=args.datasets_dir,
        network_in=args.network_in,
        search_dir=args.search_dir,
        criteria=CheckpointFilter(tuple(keywords), args.min_ckpt_iter, args.max_ckpt_iter),
        asserted=asserted,
        solver=SolverOptions(
            args.solver, args.hypotheses, args.threshold, args.inlieralpha, args.maxpixelerror, args.seed
        ),
        image_height=args.image_height,
        num_workers=args.num_workers,
        plot=args.plot,
        save_pred=args.save_pred,
        overview=args.overview,
    )
