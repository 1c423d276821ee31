"""What the stages of `run_crossloc.sh` came to: from its commands, its journal and the files of its runs."""

from __future__ import annotations

import argparse
import csv
import io
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from evaluation.checkpoints import IterationRange, find_weights
from evaluation.options import parse_options
from evaluation.reports import read_evaluations, results_path, twin_of, weights_fingerprint
from evaluation.sections import section_for
from evaluation.selection import rank
from evaluation.task_table import EVALUATIONS
from records.files import replacing, write_json
from runs.search import run_in
from training.log import CSV_NAME
from training.options import (
    TrainingOptions,
    add_arguments,
    add_decoder_arguments,
    decoder_options_from,
    options_from,
)
from training.run_folder import folder_of

COMMANDS_NAME, JOURNAL_NAME, TABLE_NAME = "commands.sh", "journal.csv", "stages"
_TITLES = ("stage", "state", "training", "validation", "images", "score", "selected")
_INTERRUPTED = 130


@dataclass(frozen=True)
class Stage:
    """A row of the table: a training with the validation of its checkpoints, or a test.

    Attributes:
        state: done, failed, interrupted, or open (not begun, or not to its end).
        training_seconds, validation_seconds: of all calls together; None: never called. A test's time is a validation's.
        images: that the training has used, repeated ones too, or that the test is of.
        selected: the weights file that the score is of.
        figure: what ranks checkpoints of this task, of the unit `unit`, measured on `section`.
    """

    stage: str
    state: str
    training_seconds: int | None
    validation_seconds: int | None
    images: int | None = None
    selected: Path | None = None
    title: str | None = None
    figure: float | None = None
    unit: str | None = None
    section: str | None = None


@dataclass(frozen=True)
class _Attempts:
    """All calls of one stage."""

    seconds: int | None = None
    last_status: int | None = None


def stages(folder: Path) -> list[Stage]:
    """The rows of a curriculum in its order.

    Args:
        folder: where `run_crossloc.sh` keeps the commands of all stages and the journal of its calls.
    Raises:
        FileNotFoundError, ValueError: these files are absent or damaged; names them.
    """
    commands = _commands(folder / COMMANDS_NAME)
    journal = _journal(folder / JOURNAL_NAME)
    rows = []
    for name, words_of_stage in commands.items():
        attempts = journal.get(name, _Attempts())
        if name.startswith("test "):
            rows += _tests(name, attempts, words_of_stage[0])
        elif not name.startswith("validate "):
            validation = next(other for other in commands if _validates(other, name))
            rows.append(
                _training(name, attempts, journal.get(validation, _Attempts()), words_of_stage[0], commands[validation][0])
            )
    return rows


def text_table(rows: Sequence[Stage]) -> str:
    """The rows for people, in columns under their titles."""
    cells = [_TITLES, *(tuple(_cells(row)) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_TITLES))]
    numbers = {_TITLES.index(title) for title in ("training", "validation", "images")}

    def padded(line: Sequence[str]) -> Iterator[str]:
        for column, (cell, width) in enumerate(zip(line, widths, strict=True)):
            yield cell.rjust(width) if column in numbers else cell.ljust(width)

    return "\n".join("  ".join(padded(line)).rstrip() for line in cells)


def write_table(folder: Path, rows: Sequence[Stage]) -> None:
    """Writes the rows as `stages.csv` and `stages.json`; what is not known is empty there, and null here."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(vars(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(row) for row in rows)
    with replacing(folder / f"{TABLE_NAME}.csv") as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    write_json(folder / f"{TABLE_NAME}.json", list(rows))


def _commands(path: Path) -> dict[str, list[list[str]]]:
    """The words of every stage's commands, from a script in which each stage is preceded by its name as a comment."""
    if not path.is_file():
        raise FileNotFoundError(f"no commands at {path}; run_crossloc.sh writes them")
    found: dict[str, list[list[str]]] = {}
    name = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            name = line.removeprefix("# ")
            found[name] = []
        elif name is None:
            raise ValueError(f"{path}: no stage is named before {line!r}")
        else:
            found[name].append(shlex.split(line))
    return found


def _journal(path: Path) -> dict[str, _Attempts]:
    """Lines `stage,begun,seconds,status`, one a call; one that an interruption cut short is passed over."""
    found: dict[str, _Attempts] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            name, _, seconds, status = line.split(",")
            found[name] = _Attempts((found.get(name, _Attempts()).seconds or 0) + int(seconds), int(status))
        except ValueError:
            continue
    return found


def _validates(validation: str, training: str) -> bool:
    """One validation may be of several trainings: `validate decoder` of all decoders."""
    return validation.startswith("validate ") and f"{training} ".startswith(f"{validation.removeprefix('validate ')} ")


def _training(
    name: str, training: _Attempts, validation: _Attempts, words: Sequence[str], validation_words: Sequence[str]
) -> Stage:
    options = _training_options(words)
    run = folder_of(options)
    row = Stage(
        name,
        _state(training, validation, done=run.done),
        training.seconds,
        validation.seconds,
        images=_images_seen(run.output / CSV_NAME),
    )
    asked = parse_options(validation_words[2:])
    iterations = IterationRange(asked.min_ckpt_iter, asked.max_ckpt_iter)
    try:
        section = section_for(asked.section[0], run_in(run.checkpoints), run.checkpoints)
        ranked = rank(run.checkpoints, options.task, section, iterations)
    except (ValueError, FileNotFoundError):
        return row if row.state != "done" else replace(row, state="open")  # nothing to select from yet
    best = next((candidate for candidate in ranked if candidate.iteration is not None), ranked[0])
    return _with_score(row, options.task, best.weights, best.figure, best.section)


def _training_options(words: Sequence[str]) -> TrainingOptions:
    decoder = Path(words[1]).name == "finetune_decoder_single_task.py"
    parser = argparse.ArgumentParser()
    (add_decoder_arguments if decoder else add_arguments)(parser)
    args = parser.parse_args(words[2:])
    return decoder_options_from(args) if decoder else options_from(args)


def _state(*attempts: _Attempts, done: bool) -> str:
    statuses = [attempt.last_status for attempt in attempts]
    if _INTERRUPTED in statuses:
        return "interrupted"
    if any(statuses):
        return "failed"
    return "done" if done and None not in statuses else "open"


def _images_seen(log: Path) -> int | None:
    """Of the last complete row of a training's CSV."""
    if not log.is_file():
        return None
    seen = None
    with log.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if None not in row.values():
                seen = int(row["images_seen"])
    return seen


def _with_score(row: Stage, task: str, weights: Path, figure: float, section: str) -> Stage:
    first = EVALUATIONS[task].figures[0]
    return replace(row, selected=weights, title=first.title, figure=figure, unit=first.unit, section=section)


def _tests(name: str, attempts: _Attempts, words: Sequence[str]) -> list[Stage]:
    """A row for every weights file that was tested; one without a score where none was."""
    options = parse_options(words[2:])
    row = Stage(name, _state(attempts, done=True), None, attempts.seconds)
    try:
        weights = [found.path for found in find_weights(options)]
    except (ValueError, FileNotFoundError):
        return [replace(row, state="open") if row.state == "done" else row]
    rows = []
    for path in weights:
        entry = _newest_result(path, options.task, options.section[0])
        if entry is None:
            rows.append(replace(row, state="open", selected=path))
            continue
        group, key = EVALUATIONS[options.task].figures[0].summary_path
        value = entry["summary"][group][key]
        images = sum(section["samples"] for section in entry["sections"])
        scored = _with_score(row, options.task, path, math.nan if value is None else value, options.section[0])
        rows.append(replace(scored, images=images))
    return rows


def _newest_result(weights: Path, task: str, section: str) -> dict[str, Any] | None:
    """The last result of the weights as they are now."""
    twin = twin_of(results_path(weights, task))
    if not twin.is_file():
        return None
    content = weights_fingerprint(weights)
    entries = read_evaluations(twin)
    fitting = [e for e in entries if e.get("section") == section and e.get("weights_fingerprint") == content]
    return fitting[-1] if fitting else None


def _cells(row: Stage) -> Iterator[str]:
    yield row.stage
    yield row.state
    for seconds in (row.training_seconds, row.validation_seconds):
        yield "" if seconds is None else str(timedelta(seconds=seconds))
    yield "" if row.images is None else f"{row.images:,}"
    yield "" if row.figure is None else f"{row.title} {_number(row.figure)} {row.unit} on {row.section}"
    yield "" if row.selected is None else _short_name(row.selected)


def _number(figure: float) -> str:
    return f"{figure:.3f}" if math.isfinite(figure) else "none"  # no pose for half of the images


def _short_name(weights: Path) -> str:
    """`model.net` says nothing without its folder."""
    return weights.name if weights.name != "model.net" else f"{weights.parent.name}/{weights.name}"
