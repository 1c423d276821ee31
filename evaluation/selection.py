"""Choosing a checkpoint by its evaluation results."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataloader.preprocessing import RECORD_NAME, record_of
from evaluation.checkpoints import CheckpointFilter, iteration_of
from evaluation.reports import read_evaluations, replacing
from tasks import task_named

logger = logging.getLogger(__name__)

OVERALL_NAME = "results_overall.txt"
_NUMBER = r"(nan|inf|-?\d+(?:\.\d+)?)"


@dataclass(frozen=True)
class _Figure:
    """A figure of a report: where it stands in the JSON twin, and the line whose last number it is in the text."""

    title: str
    unit: str
    summary_path: tuple[str, str]
    pattern: str


@dataclass(frozen=True)
class _Criterion:
    """What ranks the checkpoints of a task, and what decides between equals."""

    figure: _Figure
    tie_break: _Figure | None = None
    descending: bool = False


_CRITERIA = {
    "coord": _Criterion(
        _Figure("median position error", "m", ("translation_m", "median"), rf"^Median Error: .* {_NUMBER} m$"),
        # Early checkpoints may all have no pose for most images; their coordinates still differ.
        _Figure("median coordinate error", "m", ("coord_error_m", "median"), rf"^Coordinate reg.* median {_NUMBER}$"),
    ),
    "depth": _Criterion(_Figure("median RMS error", "m", ("rms_m", "median"), rf"^RMS error, .* median: {_NUMBER}m$")),
    "normal": _Criterion(
        _Figure("median angular error", "deg", ("angle_deg", "median"), rf"^angular pred.* median: {_NUMBER} deg$")
    ),
    "semantics": _Criterion(
        _Figure("median of the mean IoU", "%", ("mean_iou", "median"), rf"^Mean IoU, .* median: {_NUMBER}$"),
        descending=True,
    ),
}


@dataclass(frozen=True)
class Candidate:
    """A weights file with the figure that ranks it."""

    weights: Path
    figure: float
    tie_break: float
    iteration: int | None


def rank(folder: Path, task: str, section: str | None = None) -> list[Candidate]:
    """Weights of a folder with results, best first.

    Equal figures are ordered by the task's tie-break, then by iteration, unnumbered weights last.

    Args:
        section: the results that count; None: each file's last block.
    Raises:
        FileNotFoundError: no results of the task (and section) are there.
        ValueError: a results file is damaged; names it.
    """
    task_named(task)
    criterion = _CRITERIA[task]
    files = sorted(folder.glob(f"results_*task_{task}.txt"))
    candidates = []
    for path in files:
        figures = _figures(path, criterion, section)
        if figures is not None:
            weights = path.with_name(f"{path.name[len('results_') : -len(f'_task_{task}.txt')].removesuffix('.net')}.net")
            candidates.append(Candidate(weights, *figures, iteration_of(weights)))
    if not candidates:
        wanted = f"results_*task_{task}.txt" if not files else f"section {section} in its {len(files)} results files"
        raise FileNotFoundError(f"no results to choose from in {folder.resolve()}: no {wanted}; run test_single_task.py")

    def key(candidate: Candidate) -> tuple:
        figure = -candidate.figure if criterion.descending else candidate.figure
        iteration = math.inf if candidate.iteration is None else candidate.iteration
        return figure, candidate.tie_break, iteration, candidate.weights.name

    return sorted(candidates, key=key)


def _figures(path: Path, criterion: _Criterion, section: str | None) -> tuple[float, float] | None:
    """Ranking figure and tie-break of a results file: from its JSON twin where there is one, else from the text."""
    twin = path.with_suffix(".json")
    if twin.is_file():
        matching = [e for e in read_evaluations(twin) if section is None or e.get("section") == section]
        read, source, place = _from_summary, [e.get("summary") for e in matching], twin
    else:
        parts = re.split(r"^=+ Evaluation on section (.+?) =+$", path.read_text(), flags=re.MULTILINE)[1:]
        blocks = zip(parts[::2], parts[1::2], strict=True)
        read, source, place = _from_text, [text for name, text in blocks if section is None or name == section], path
    if not source:
        if section is None:
            raise ValueError(f"{place} holds no evaluation; delete it and evaluate again")
        return None
    found = [read(source[-1], figure) for figure in (criterion.figure, criterion.tie_break) if figure is not None]
    if None in found:
        raise ValueError(f"{place}: the last evaluation has no {criterion.figure.title}; evaluate again")
    worst = -math.inf if criterion.descending else math.inf
    found = [worst if math.isnan(value) else value for value in found]
    return (found[0], found[1]) if len(found) == 2 else (found[0], 0.0)


def _from_text(block: str, figure: _Figure) -> float | None:
    match = re.search(figure.pattern, block, flags=re.MULTILINE)
    return float(match[1]) if match else None


def _from_summary(summary: Any, figure: _Figure) -> float | None:
    """The figure; what was not finite, null in JSON, is NaN."""
    outer, inner = figure.summary_path
    try:
        value = summary[outer][inner]
    except (KeyError, TypeError):
        return None
    return math.nan if value is None else float(value)


def select(folder: Path, task: str, section: str | None = None) -> tuple[list[Candidate], Candidate]:
    """Ranks a folder's results, writes `results_overall.txt` and flags the best numbered checkpoint.

    Unnumbered weights (model.net) are copies of a numbered state: they are listed, and chosen only when nothing else is.

    Returns:
        (all candidates, best first; the selected one).
    """
    candidates = rank(folder, task, section)
    selected = next((c for c in candidates if c.iteration is not None), candidates[0])
    with replacing(folder / OVERALL_NAME) as temporary:
        temporary.write_text(table(candidates, task) + "\n")
    for stale in folder.glob("FLAG_SELECTED_ITER_*.nodata"):
        stale.unlink()
    if selected.iteration is not None:
        (folder / f"FLAG_SELECTED_ITER_{selected.iteration:07d}.nodata").touch()
    return candidates, selected


def table(candidates: Sequence[Candidate], task: str) -> str:
    """One line per candidate under a title."""
    figure = _CRITERIA[task].figure
    lines = [f"{figure.title} ({figure.unit}), best first"]
    return "\n".join(lines + [f"{c.figure:10.3f}  {c.weights.name}" for c in candidates])


def result_folders(search_dir: Path, task: str, keywords: Sequence[str]) -> list[Path]:
    """Folders below (and including) `search_dir` with results of the task whose path contains all keywords."""
    if not search_dir.is_dir():
        raise FileNotFoundError(f"no such folder: {search_dir}")
    criteria = CheckpointFilter(tuple(keywords))
    folders = sorted({path.parent for path in search_dir.rglob(f"results_*task_{task}.txt") if criteria.accepts(path)})
    if not folders:
        raise FileNotFoundError(
            f"no results_*task_{task}.txt below {search_dir} in a folder with {list(keywords)} in its path"
        )
    return folders


def export_path(template: str, weights: Path) -> Path:
    """Fills the fields of a path template from the training record beside the weights.

    Fields are the record's keys (scene, task, sim_chunk, ...) and `partial`: '-partial-finetuning-0.50' when the real
    chunk is not 1, else nothing.

    Raises:
        ValueError: the template has fields and there is no record, or it lacks one.
    """
    if "{" not in template:
        return Path(template)
    record = record_of(weights)
    if record is None:
        raise ValueError(f"cannot fill {template!r}: there is no {RECORD_NAME} beside {weights}")
    real_chunk = record.get("real_chunk", 1.0)
    partial = "" if real_chunk == 1 else f"-partial-finetuning-{real_chunk:.2f}"
    try:
        return Path(template.format_map({**record, "partial": partial}))
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"cannot fill {template!r} from the training record of {weights}: {error}") from None


def export(weights: Path, target: Path) -> None:
    """Copies weights, with their training record as `<stem>.json`, making folders; each file appears complete or not at all.

    Raises:
        FileNotFoundError: the weights are gone.
        ValueError: the target is not named like weights.
    """
    if not weights.is_file():
        raise FileNotFoundError(f"the selected weights {weights} are not there any more")
    if target.suffix != ".net":
        raise ValueError(f"--export wants a file name that ends in .net, got {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    sidecar = target.with_suffix(".json")
    record = next((p for p in (weights.with_suffix(".json"), weights.parent / RECORD_NAME) if p.is_file()), None)
    if record is not None:
        _copy(record, sidecar)
    else:
        sidecar.unlink(missing_ok=True)  # one of earlier weights would lie about these
    _copy(weights, target)


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        os.chmod(temporary, 0o644)


def select_and_export(
    folders: Sequence[Path], task: str, section: str | None, template: str | None, say: Callable[[str], None]
) -> None:
    """Selects in every folder; exports each winner, the best one where several runs fill the same path.

    Args:
        say: receives the text for the user.
    """
    chosen: dict[Path, Candidate] = {}
    for folder in folders:
        candidates, selected = select(folder, task, section)
        say(f"{folder}\n{table(candidates[:20], task)}\nselected: {selected.weights.name}")
        if template is None:
            continue
        target = export_path(template, selected.weights)
        if target in chosen:
            rival = chosen[target]
            better = max if _CRITERIA[task].descending else min
            logger.warning("%s and %s both go to %s; the better one does", rival.weights, selected.weights, target)
            selected = better((rival, selected), key=lambda c: c.figure)
        chosen[target] = selected
    for target, selected in chosen.items():
        export(selected.weights, target)
        say(f"exported: {selected.weights} -> {target}")
