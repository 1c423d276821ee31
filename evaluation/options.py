"""What an evaluation can be told: the flags of `test_single_task.py`, declared once."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from localization.refinement import REFINE_HELP, REFINEMENTS, WORKING_HEIGHTS
from localization.solving import SolverOptions
from records.options import add_options, between, option, options_from, positive
from runs.device import PRECISIONS
from runs.record import DOMAINS, KINDS, STAGES
from runs.search import RunFilter
from tasks import TASKS, UNCERTAINTIES

SIZES = ("full", "tiny")
DEFAULT_SECTIONS = ("val_drone_sim", "val_drone_real")
SHORT_FLAGS = ("-h", "-sid", "-hyps", "-t", "-ia", "-maxerrr")


def _not_nan(name: str, value: float) -> None:
    if math.isnan(value):
        raise ValueError(f"{name} must be a number, got nan")


@dataclass(frozen=True)
class RunChoice:
    """Which runs a search is about, by what their records say."""

    stage: str | None = option(None, choices=STAGES, help="only runs of this stage")
    kind: str | None = option(None, choices=KINDS, help="only runs on this kind of data")
    domain: str | None = option(None, choices=DOMAINS, help="only runs on real photos of this domain")
    size: str | None = option(None, choices=SIZES, help="only networks of this size")
    keywords: tuple[str, ...] = option(
        (), metavar="K", help="all must occur in the run folder's name; with a leading !, must not"
    )

    def criteria(self, *, scene: str | None, task: str | None) -> RunFilter:
        """The filter of a search."""
        return RunFilter(scene, task, self.stage, self.kind, self.domain, self.size, self.keywords)


@dataclass(frozen=True)
class EvaluationOptions:
    """One evaluation.

    Attributes:
        search_dir: None: no search; the empty text: the direct sub-folders of `network_in`, as published; else a folder that
            is searched with all its sub-folders.
    """

    scene: str = option(positional=True, help="scene name: the folder below the data sets folder")
    task: str = option(choices=TASKS, help="what the networks predict")
    solver: SolverOptions = field(default_factory=SolverOptions)

    section: tuple[str, ...] = option(
        DEFAULT_SECTIONS,
        group="data",
        metavar="S",
        help="sections; validation or test: the one that fits each run; groups: test_real_all real_all test_sim_all sim_all",
    )
    datasets_dir: Path = option(
        default_factory=lambda: Path(os.environ.get("DATASETS_DIR") or "datasets"),
        decides=False,
        help="folder of the scenes, also by the environment's DATASETS_DIR",
    )
    image_height: int | None = option(
        None, check=positive, help="shorter side of the network input in px; default: as in training, else 480"
    )
    num_workers: int = option(0, check=between(0, 1024), decides=False, help="loader processes")

    network_in: Path | None = option(
        None,
        group="weights (their architecture is read from them; flags only assert it)",
        decides=False,
        help="weights file, or folder: its model.net and ckpt_iter*.net",
    )
    runs: RunChoice = RunChoice()
    session: str = option("", flags=("-sid",), help="only runs of this session")
    min_ckpt_iter: float | None = option(None, check=_not_nan, help="only checkpoints beyond this iteration")
    max_ckpt_iter: float | None = option(None, check=_not_nan, help="only checkpoints before this iteration")
    grayscale: bool = option(False, help="the network takes grey images")
    tiny: bool = option(False, help="the network is the small one; in a search: only such runs")
    fullsize: bool = option(False, help="the network predicts at image size")
    uncertainty: str | None = option(None, choices=UNCERTAINTIES, lower=True, help="the network's uncertainty")
    precision: str | None = option(None, choices=PRECISIONS, help="of the network's arithmetic; default: as in training")

    refine: str | None = option(None, choices=REFINEMENTS, group="refinement by the map (task coord)", help=REFINE_HELP)
    refine_height: int = option(
        WORKING_HEIGHTS[0], check=between(64, 4096), help="shorter side at which photo and map are compared, px"
    )
    surface: tuple[Path, ...] = option((), decides=False, metavar="DSM", help="surface model of the map; for --report, too")
    ortho: tuple[Path, ...] = option((), decides=False, metavar="ORTHO", help="orthophoto, with --surface")

    plot: bool = option(
        False, group="output, beside the weights", decides=False, help="pictures of every image's prediction and error"
    )
    save_pred: bool = option(False, decides=False, help="predictions as .npz")
    overview: Path | None = option(
        None,
        decides=False,
        metavar="PICTURE",
        help="one picture of the whole: predictions, errors, track (one weights file and section, coord)",
    )
    report: Path | None = option(
        None,
        decides=False,
        metavar="HTML",
        help="one self-contained page: a panel per image, the map, distributions, the worst ten (one weights file and "
        "section, coord)",
    )
    calibrate: bool = option(
        False,
        decides=False,
        help="learn from this section (of validation) how far answers can be believed; kept beside the weights",
    )
    error_bound: float | None = option(
        None,
        check=positive,
        decides=False,
        metavar="M",
        help="with --calibrate: what a verdict promises, metres; default: 5 % of the section's distance to the ground",
    )
    resume: bool = option(False, decides=False, help="skip what was evaluated already: same weights, section and settings")
    device: str = option("auto", decides=False, help="auto, cpu, cuda, cuda:1, ...")

    search_dir: str | None = None

    @property
    def refines(self) -> bool:
        """Whether poses are refined by the map."""
        asked = bool(self.surface) if self.refine is None else self.refine != "off"
        return self.task == "coord" and asked

    @property
    def scene_dir(self) -> Path:
        """Folder of the scene's sections; as published, also for full-size networks (their labels: SCENE-fullsize)."""
        return self.datasets_dir / self.scene

    @property
    def criteria(self) -> RunFilter:
        """Which runs a search finds."""
        size = self.runs.size or ("tiny" if self.tiny else None)
        return replace(self.runs.criteria(scene=self.scene.removesuffix("-fullsize"), task=self.task), size=size)

    @property
    def asserted(self) -> dict[str, Any]:
        """What flags say of the architecture, by field of `Architecture`."""
        said: dict[str, Any] = {}
        if self.grayscale:
            said["in_channels"] = 1
        said.update({name: True for name in ("tiny", "fullsize") if getattr(self, name)})
        if self.uncertainty is not None:
            said["uncertainty"] = self.uncertainty
        return said


@dataclass(frozen=True)
class SelectionOptions:
    """A selection of checkpoints: the flags of `select_ckpt.py`."""

    task: str = option(choices=TASKS, help="whose results")
    section: str | None = option(
        None,
        help="whose results; validation or test: of the section that fits each run; default: the last block of each file",
    )
    search_dir: Path | None = option(None, help="select in every run folder there and below; default: in the current folder")
    scene: str | None = option(None, help="in a search: only runs of this scene")
    runs: RunChoice = RunChoice()
    min_ckpt_iter: float | None = option(None, check=_not_nan, help="only checkpoints beyond this iteration")
    max_ckpt_iter: float | None = option(None, check=_not_nan, help="only checkpoints before this iteration")
    export: str | None = option(
        None,
        metavar="PATH",
        help="copy the selected weights, with their record, there; fields in "
        "braces ({scene} {task} {sim_chunk:.2f} {real_chunk:.2f} {domain} {partial} ...) are filled "
        "from the record",
    )

    @property
    def criteria(self) -> RunFilter:
        """Which runs a search finds."""
        return self.runs.criteria(scene=self.scene, task=self.task)


def parse_options(arguments: Sequence[str], description: str | None = None) -> EvaluationOptions:
    """The options of a command line, checked.

    Raises:
        ValueError: a value that is not allowed, or flags that contradict each other; names them.
    """
    parser = argparse.ArgumentParser(description=description)
    add_options(parser, EvaluationOptions)
    parser.add_argument(
        "--search_dir",
        nargs="?",
        const="",
        default=None,
        metavar="DIR",
        help="evaluate the runs of SCENE and --task in DIR and all its sub-folders; without DIR: in the direct sub-folders "
        "of --network_in",
    )
    others, keywords = without_keywords(arguments, SHORT_FLAGS)
    args = parser.parse_args(others)
    args.keywords = keywords
    options = options_from(EvaluationOptions, args, search_dir=args.search_dir)
    if options.overview is not None and (options.task != "coord" or len(options.section) != 1):
        raise ValueError("--overview draws one section of the coord task")
    if options.report is not None and (options.task != "coord" or len(options.section) != 1):
        raise ValueError("--report shows one section of the coord task")
    if options.calibrate and (options.task != "coord" or len(options.section) != 1):
        raise ValueError("--calibrate learns from one section of the coord task")
    if options.calibrate and options.solver.solver == "published":
        raise ValueError("--solver published says nothing of its confidence: calibrate with --solver dsacstar")
    if options.calibrate and options.section[0].startswith("test"):
        raise ValueError(f"--calibrate on {options.section[0]} would make its figures worthless; name a validation section")
    if options.error_bound is not None and not options.calibrate:
        raise ValueError("--error_bound is for --calibrate: evaluations obey the bound that was calibrated")
    if bool(options.surface) != bool(options.ortho):
        raise ValueError("--surface and --ortho go together")
    if options.refine not in (None, "off") and options.task != "coord":
        raise ValueError(f"--refine {options.refine} refines poses; --task {options.task} has none")
    if options.tiny and options.runs.size == "full":
        raise ValueError("--tiny and --size full contradict each other")
    return options


def without_keywords(arguments: Sequence[str], short_flags: Collection[str]) -> tuple[list[str], tuple[str, ...]]:
    """Takes `--keywords a -tiny` out of a command line, because argparse would take -tiny for a flag.

    Args:
        short_flags: the command's flags with a single dash; one of them, or any with two dashes, ends the keywords.
    Returns:
        (the other arguments, all keywords). A --keywords without a word stays, for argparse to complain about.
    """
    others: list[str] = []
    keywords: list[str] = []
    inside = False
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if argument.startswith("--") or flag in short_flags:
            inside = argument == "--keywords"
            if flag == "--keywords" and value:
                keywords.append(value)
            else:
                others.append(argument)
        elif inside:
            if others and others[-1] == "--keywords":
                others.pop()
            keywords.append(argument)
        else:
            others.append(argument)
    return others, tuple(keywords)
