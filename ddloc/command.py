"""What DDLoc's commands share: from the command line to the exit status."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ddloc.evaluate import ChainOptions, evaluate_chain
from ddloc.loop import train_stage
from ddloc.options import Place, StageOptions
from ddloc.translated import draw_photos, generate
from evaluation.sections import section_dirs
from records import options as declared
from records.command import FAILURES, exit_status
from records.options import option
from runs.device import choose_device
from runs.messages import explained
from training.loop import TrainingInterrupted

_MEMORY_ADVICE = "try a smaller --batch_size, --width or --image_height and another --project_name"
_LOADER_ADVICE = "The state is saved: continue with --auto_resume"


@dataclass(frozen=True, kw_only=True)
class TranslationOptions(Place):
    """One translation of sections."""

    section: tuple[str, ...] = option(
        ("train_drone_real",), metavar="S", help="sections of real photos", group="translation"
    )
    picture: Path | None = option(
        None, decides=False, help="picture of some photos of the first section: real, mask, translated, inpainted"
    )


def run_stage(description: str | None) -> int:
    """`train_ddloc.py STAGE SCENE ...`."""

    def work(options: StageOptions) -> str:
        return f"weights: {train_stage(options.completed()).output}"

    return _run(description, StageOptions, work)


def run_translation(description: str | None) -> int:
    """`generate_translated.py SCENE ...`."""

    def work(options: TranslationOptions) -> str:
        device = choose_device(options.device)
        sections = [folder for name in options.section for folder in section_dirs(options.scene_dir, name)]
        folders = [generate(options.project_dir, section, device) for section in sections]
        if options.picture is not None:
            draw_photos(options.project_dir, sections[0], device, options.picture)
        return f"translated: {', '.join(map(str, folders))}"

    return _run(description, TranslationOptions, work)


def run_evaluation(description: str | None) -> int:
    """`eval_ddloc.py SCENE ...`."""

    def work(options: ChainOptions) -> str:
        return "".join(evaluate_chain(options))

    return _run(description, ChainOptions, work)


def _run(description: str | None, cls: type, work: Callable) -> int:
    """Parses, works, and explains what went wrong in one line; 0 done, 2 refused or failed, 130 interrupted."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=description)
    declared.add_options(parser, cls)
    args = parser.parse_args()
    try:
        return exit_status(
            lambda: print(work(declared.options_from(cls, args))),
            expected=FAILURES,
            explain=lambda error: explained(error, memory=_MEMORY_ADVICE, loader=_LOADER_ADVICE),
        )
    except TrainingInterrupted as stop:
        print(stop, file=sys.stderr)
        return 130
