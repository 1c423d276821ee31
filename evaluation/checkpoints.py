"""Which weights files an evaluation is about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.options import EvaluationOptions
from runs.record import record_of
from runs.search import Run, RunFilter, find_runs, iteration_of, run_in

NAME_RULE = "weights are named model*.net or contain ckpt_ or crossloc, and end in .net (or .safetensors)"
# What published names say of the number of encoders; the first that occurs counts.
_NAMED_ENCODERS = (
    ("crossloc_se", 4),
    ("crossloc", 3),
    ("-decoder_coord_free_depth_normal_semantics-senc-", 4),
    ("-decoder_coord_free_depth_normal-senc-", 3),
    ("-decoder_coord_free_semantics-senc-", 2),
)


@dataclass(frozen=True)
class Weights:
    """A weights file and the run that made it; None when neither a record nor the folder's name says."""

    path: Path
    run: Run | None


@dataclass(frozen=True)
class IterationRange:
    """Numbered checkpoints between two iterations, both exclusive; with either, files without an iteration drop out."""

    low: float | None = None
    high: float | None = None

    def accepts(self, weights: Path) -> bool:
        if self.low is None and self.high is None:
            return True
        iteration = iteration_of(weights)
        return (
            iteration is not None
            and (self.low is None or iteration > self.low)
            and (self.high is None or iteration < self.high)
        )

    def __str__(self) -> str:
        parts = [f"{word} {v:g}" for word, v in (("beyond", self.low), ("before", self.high)) if v is not None]
        return " and ".join(parts) or "of any iteration"


ANY_ITERATION = IterationRange()


def find_weights(options: EvaluationOptions) -> list[Weights]:
    """Weights files that the options name, in the order of folder and iteration (unnumbered ones last).

    A search finds runs by their records (or published folder names): scene, task, and what else was asked for. Without a
    search, the named file or folder is taken; flags about the run are then assertions.

    Raises:
        ValueError: contradictory flags, a file with a foreign name, or one whose run nothing describes though a flag asks.
        FileNotFoundError: nothing is there, or nothing passes.
    """
    if options.search_dir is None:
        found, place = _named(options), options.network_in
    else:
        found, place = _searched(options)
    iterations = IterationRange(options.min_ckpt_iter, options.max_ckpt_iter)
    chosen = [w for w in found if iterations.accepts(w.path)]
    if not chosen:
        reason = f"{len(found)} weights files, none {iterations}" if found else NAME_RULE
        raise FileNotFoundError(f"no weights to evaluate in {place}: {reason}")
    return chosen


def run_of(weights: Path) -> Run | None:
    """The run that made a weights file: by its record, else by the published name of its folder."""
    folder = weights.resolve().parent
    record = record_of(weights)
    if record is None:
        return run_in(folder)
    return Run(folder, record, record.scene, record.task, record.stage, record.kind, record.domain, record.size)


def _named(options: EvaluationOptions) -> list[Weights]:
    path = options.network_in
    if path is None:
        raise ValueError("name the weights by --network_in (a file or folder) or --search_dir")
    if path.is_dir():
        files = weights_in(path)
    elif not path.is_file():
        raise FileNotFoundError(f"no such weights file or folder: {path}")
    elif not _has_weights_name(path.name):
        raise ValueError(f"{path} is no weights file by its name: {NAME_RULE}")
    else:
        files = [path]
    criteria = replace(options.criteria, scene=None, task=None, size=options.runs.size)
    return [Weights(file, _asserted_run(file, criteria, options.session)) for file in files]


def _asserted_run(weights: Path, criteria: RunFilter, session: str) -> Run | None:
    """The run of named weights; refuses one that is not what the flags say."""
    run = run_of(weights)
    about_run = replace(criteria, keywords=())
    if run is None and (about_run != RunFilter() or session):
        raise ValueError(f"nothing says what run {weights} is of, so it cannot be checked for {criteria}; drop these flags")
    name = weights.resolve().parent.name
    if not all((word.removeprefix("!") in name) != word.startswith("!") for word in criteria.keywords):
        raise FileNotFoundError(f"the folder of {weights} does not fit the keywords {' '.join(criteria.keywords)}")
    if run is not None and not (about_run.accepts(run) and _has_session(run, session)):
        raise ValueError(f"{weights} is of the run {run.name}, which is not of {_described(about_run, session)}")
    return run


def _searched(options: EvaluationOptions) -> tuple[list[Weights], Path]:
    if options.search_dir == "":
        if options.network_in is None or not options.network_in.is_dir():
            raise ValueError(f"--search_dir without a folder needs --network_in with one, got {options.network_in}")
        place = options.network_in
        runs = _runs_directly_in(place, options.criteria)
    else:
        if options.network_in is not None:
            raise ValueError("give either --network_in or a folder to --search_dir, not both")
        place = Path(options.search_dir or "")
        runs = find_runs(place, options.criteria)
    of_session = [run for run in runs if _has_session(run, options.session)]
    if not of_session:
        raise FileNotFoundError(f"no run in {place} is of {_described(options.criteria, options.session)}")
    # Exported weights have their record beside them, not their folder's.
    found = [(file, run) for run in of_session for file in weights_in(run.folder)]
    return [Weights(file, run_of(file) if run.record is None else run) for file, run in found], place


def _runs_directly_in(folder: Path, criteria: RunFilter) -> list[Run]:
    subfolders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    runs = [run for path in subfolders if (run := run_in(path)) is not None]
    chosen = [run for run in runs if criteria.accepts(run)]
    if not chosen:
        raise FileNotFoundError(
            f"no run directly in {folder} is of {criteria}; there are: {', '.join(run.name for run in runs[:5]) or 'none'}"
        )
    return chosen


def _has_session(run: Run, session: str) -> bool:
    if not session:
        return True
    if run.record is not None:
        return run.record.options.get("session", "") == session
    return f"-s{session}-" in f"{run.name}-"


def _described(criteria: RunFilter, session: str) -> str:
    return f"{criteria}, session {session}" if session else str(criteria)


def _has_weights_name(name: str) -> bool:
    return name.endswith((".net", ".safetensors")) and (name.startswith("model") or "ckpt_" in name or "crossloc" in name)


def named_encoders(weights: Path) -> int | None:
    """The number of encoders that a published name stands for; None: it says nothing. What counts is in the file."""
    return next((number for mark, number in _NAMED_ENCODERS if mark in weights.name), None)


def weights_in(folder: Path) -> list[Path]:
    """The numbered checkpoints of a folder by iteration, then its model.net (else model.safetensors), then files that are
    named crossloc as published; model.net and checkpoints may lie in different folders."""
    numbered = [path for path in folder.glob("ckpt_iter*.net") if iteration_of(path) is not None]
    latest = [path for path in (folder / "model.net", folder / "model.safetensors") if path.is_file()][:1]
    fused = sorted(p for p in folder.glob("*crossloc*") if _has_weights_name(p.name) and p not in (*numbered, *latest))
    return sorted(numbered, key=lambda path: iteration_of(path) or 0) + latest + fused
