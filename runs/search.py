"""Finding runs by what they are: records first, published folder names where another system left none."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runs.record import RECORD_NAME, RunRecord, read_record
from tasks import TASKS

logger = logging.getLogger(__name__)

_ITERATION = re.compile(r"ckpt_iter_(\d+)")
_FLIGHT = re.compile(r"-(?:pairs|pairwise|real_only)-(ip|oop)-")
_PUBLISHED_NAME = re.compile(rf"(?P<scene>.+?)-(?P<task>{'|'.join(TASKS)})-(?P<rest>.+)")


@dataclass(frozen=True)
class Run:
    """A run folder and what its run is.

    Attributes:
        record: None for a run of the published system; then the folder's name says the rest.
    """

    folder: Path
    record: RunRecord | None
    scene: str
    task: str
    stage: str
    kind: str
    domain: str | None
    size: str

    @property
    def name(self) -> str:
        return self.folder.resolve().name


@dataclass(frozen=True)
class RunFilter:
    """What narrows a search; None: anything.

    Attributes:
        keywords: all of them must occur in the run folder's name; one with a leading ! must not.
    """

    scene: str | None = None
    task: str | None = None
    stage: str | None = None
    kind: str | None = None
    domain: str | None = None
    size: str | None = None
    keywords: Sequence[str] = ()

    def accepts(self, run: Run) -> bool:
        for name in ("scene", "task", "stage", "kind", "domain", "size"):
            wanted = getattr(self, name)
            if wanted is not None and getattr(run, name) != wanted:
                return False
        return all((word.removeprefix("!") in run.name) != word.startswith("!") for word in self.keywords)

    def __str__(self) -> str:
        parts = [f"{n} {getattr(self, n)}" for n in ("scene", "task", "stage", "kind", "domain", "size") if getattr(self, n)]
        return ", ".join(parts + [f"keyword {word}" for word in self.keywords]) or "anything"


def iteration_of(weights: Path) -> int | None:
    """Images seen by a numbered checkpoint, by its name; None for other weights."""
    match = _ITERATION.search(weights.name)
    return int(match[1]) if match else None


def run_in(folder: Path) -> Run | None:
    """The run of a folder: by its record, else by its published name; None when it is neither.

    Raises:
        ValueError: the record is damaged or of another version.
    """
    path = folder / RECORD_NAME
    if path.is_file():
        record = read_record(path)
        return Run(folder, record, record.scene, record.task, record.stage, record.kind, record.domain, record.size)
    match = _PUBLISHED_NAME.fullmatch(folder.resolve().name)
    if match is None or next(folder.glob("*.net"), None) is None:
        return None
    rest = f"-{match['rest']}-"
    kind = next((kind for mark, kind in _KIND_MARKS if mark in rest), "pairs")
    flight = _FLIGHT.search(rest)  # not the "-oop-" of a session
    domain = None if kind == "sim_only" else "out_of_place" if flight and flight[1] == "oop" else "in_place"
    stage = "decoder" if match["rest"].startswith("decoder") else "finetune" if "-finetune-" in rest else "pretrain"
    size = "tiny" if "-tiny-" in rest else "full"
    return Run(folder, None, match["scene"], match["task"], stage, kind, domain, size)


_KIND_MARKS = (
    ("-real_only-", "real_only"),
    ("-pairwise-", "pairs"),
    ("-pairs-", "pairs"),
    ("-sim_only-", "sim_only"),
    ("-zero_shot-", "sim_only"),
)


def _run_or_none(folder: Path) -> Run | None:
    try:
        return run_in(folder)
    except ValueError as error:
        logger.warning("passed over: %s", error)  # one damaged record must not hide all other runs
        return None


def find_runs(search_dir: Path, criteria: RunFilter = RunFilter()) -> list[Run]:
    """Runs in a folder and below it that pass the filter, by path; damaged records are passed over with a warning.

    Raises:
        FileNotFoundError: no such folder, or no run passes; says what was there.
    """
    if not search_dir.is_dir():
        raise FileNotFoundError(f"no such folder: {search_dir}")
    folders = [search_dir, *sorted(p for p in search_dir.rglob("*") if p.is_dir() and not p.name.startswith("."))]
    runs = [run for folder in folders if (run := _run_or_none(folder)) is not None]
    chosen = [run for run in runs if criteria.accepts(run)]
    if not chosen:
        names = ", ".join(run.name for run in runs[:5]) + (" ..." if len(runs) > 5 else "")
        raise FileNotFoundError(f"no run in {search_dir} is of {criteria}" + (f"; there are: {names}" if runs else ""))
    return chosen
