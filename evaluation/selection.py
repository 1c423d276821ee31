"""Choosing a checkpoint by its evaluation results, and exporting it to where the next stage looks for it."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.checkpoints import ANY_ITERATION, IterationRange
from evaluation.reports import read_evaluations, twin_of, weights_fingerprint
from evaluation.sections import section_for
from evaluation.task_table import EVALUATIONS, Figure, TaskEvaluation
from records import fingerprint
from records.files import replacing
from runs.record import RECORD_NAME, record_of, write_sidecar
from runs.search import Run, RunFilter, find_runs, iteration_of, run_in
from tasks import task_named

logger = logging.getLogger(__name__)

OVERALL_NAME = "results_overall.txt"
_SHOWN = 20
# The text has this for what is not finite (see `evaluation.wording`); no real figure comes near.
_TEXT_NOT_FINITE = 999999.0


@dataclass(frozen=True)
class Candidate:
    """A weights file with the result that ranks it.

    Attributes:
        figures: those of the task's table; the first ranks.
        section: that the result is of.
        content: fingerprint of that section's content; None where only the published text says something.
    """

    weights: Path
    figures: tuple[float, ...]
    tie_break: float
    section: str
    content: str | None

    @property
    def figure(self) -> float:
        return self.figures[0]

    @property
    def iteration(self) -> int | None:
        return iteration_of(self.weights)


@dataclass(frozen=True)
class _Result:
    """One result of a weights file, with what it is bound to (None: not known)."""

    candidate: Candidate
    weights_content: str | None
    settings: str | None
    time: str


def _order(task: TaskEvaluation) -> Callable[[Candidate], tuple]:
    """Sort key, best first; equal figures by the task's tie-break, then by iteration, unnumbered weights last."""

    def key(candidate: Candidate) -> tuple:
        figure = -candidate.figure if task.descending else candidate.figure
        iteration = math.inf if candidate.iteration is None else candidate.iteration
        return figure, candidate.tie_break, iteration, candidate.weights.name

    return key


def rank(folder: Path, task: str, section: str | None = None, iterations: IterationRange = ANY_ITERATION) -> list[Candidate]:
    """Weights of a folder with results that may be compared, best first.

    A result counts when it is of the weights file as it is now, and of the newest content of the section that any
    checkpoint was evaluated on; where results differ in their settings, those that most checkpoints share. What is passed
    over is logged. Results without fingerprints (the published text alone) count when there are no others.

    Args:
        section: the results that count; None: each file's last ones.
        iterations: the checkpoints that count.
    Raises:
        FileNotFoundError: no results of the task (and section) are there, or none counts.
        ValueError: a results file is damaged; names it.
    """
    task_named(task)
    files = sorted(folder.glob(f"results_*.net_task_{task}.txt"))
    in_range = [path for path in files if iterations.accepts(_weights_of(path, task))]
    results = [result for path in in_range for result in _results(path, task, section)]
    if not results:
        wanted = f"results_*.net_task_{task}.txt"
        if in_range:
            wanted = f"section {section} in its {len(in_range)} results files"
        elif files:
            wanted += f" {iterations}"
        raise FileNotFoundError(f"no results to choose from in {folder.resolve()}: no {wanted}; run test_single_task.py")
    candidates = [result.candidate for result in _comparable(results)]
    if not candidates:
        raise FileNotFoundError(
            f"no results to choose from in {folder.resolve()}: none is of the weights as they are now; "
            "run test_single_task.py"
        )
    return sorted(candidates, key=_order(EVALUATIONS[task]))


def _comparable(results: list[_Result]) -> list[_Result]:
    """The newest result of every weights file among those that may be compared; says what is passed over."""
    left = [result for result in results if _is_of_present_weights(result)]
    _say_passed_over(results, left, "of other weights than the file holds now (or the file is gone)")
    if any(result.candidate.content is not None for result in left):
        bound = [result for result in left if result.candidate.content is not None]
        _say_passed_over(left, bound, "without fingerprints, so nobody knows of which weights")
        newest = max(bound, key=lambda result: result.time).candidate
        left = [r for r in bound if (r.candidate.section, r.candidate.content) == (newest.section, newest.content)]
        _say_passed_over(bound, left, f"of another content of the section than the newest result ({newest.section})")
        same_settings = [r for r in left if r.settings == _common_settings(left)]
        _say_passed_over(left, same_settings, "with other settings than most results")
        left = same_settings
    latest = {result.candidate.weights: result for result in left}  # later ones replace earlier ones
    return list(latest.values())


def _is_of_present_weights(result: _Result) -> bool:
    weights = result.candidate.weights
    if result.weights_content is None:
        return True
    return weights.is_file() and weights_fingerprint(weights) == result.weights_content


def _common_settings(results: list[_Result]) -> str | None:
    """The settings that most weights files were evaluated with; the newest among equals."""
    settings = {result.settings for result in results}

    def weight(one: str | None) -> tuple[int, str]:
        of_one = [result for result in results if result.settings == one]
        return len({result.candidate.weights for result in of_one}), max(result.time for result in of_one)

    return max(settings, key=weight)


def _say_passed_over(before: list[_Result], after: list[_Result], why: str) -> None:
    """Names the weights files that have no result left; older results of the others are no news."""
    lost = {r.candidate.weights for r in before} - {r.candidate.weights for r in after}
    if lost:
        logger.warning("passed over, results %s: %s", why, ", ".join(sorted(str(path) for path in lost)))


def _weights_of(results_file: Path, task: str) -> Path:
    return results_file.with_name(results_file.name.removeprefix("results_").removesuffix(f"_task_{task}.txt"))


def _results(path: Path, task: str, section: str | None) -> list[_Result]:
    """Results of one file, oldest first: from its JSON twin where there is one, else from the text."""
    evaluation = EVALUATIONS[task]
    weights, twin = _weights_of(path, task), twin_of(path)
    if twin.is_file():
        entries = read_evaluations(twin)
        found = [_from_entry(entry, weights, twin, evaluation) for entry in entries]
    else:
        parts = re.split(r"^=+ Evaluation on section (.+?) =+$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        blocks = zip(parts[::2], parts[1::2], strict=True)
        found = [_from_block(name, text, weights, path, evaluation) for name, text in blocks]
    if not found:
        raise ValueError(f"{path} holds no evaluation; delete it and evaluate again")
    if section is None:
        section = found[-1].candidate.section
    return [result for result in found if result.candidate.section == section]


def _from_entry(entry: dict[str, Any], weights: Path, twin: Path, task: TaskEvaluation) -> _Result:
    """A result of the JSON twin; what was not finite, null there, is NaN."""

    def value(figure: Figure) -> float | None:
        try:
            number = entry["summary"][figure.summary_path[0]][figure.summary_path[1]]
            return math.nan if number is None else float(number)
        except (KeyError, TypeError, ValueError):
            return None

    candidate = _candidate(weights, str(entry.get("section")), entry.get("section_fingerprint"), value, twin, task)
    settings = fingerprint.of_value(entry["settings"]) if "settings" in entry else None
    return _Result(candidate, entry.get("weights_fingerprint"), settings, str(entry.get("time", "")))


def _from_block(section: str, block: str, weights: Path, path: Path, task: TaskEvaluation) -> _Result:
    """A result of the published text."""

    def value(figure: Figure) -> float | None:
        match = re.search(figure.pattern, block, flags=re.MULTILINE)
        if match is None:
            return None
        number = float(match[1])
        return math.nan if number >= _TEXT_NOT_FINITE else number

    return _Result(_candidate(weights, section, None, value, path, task), None, None, "")


def _candidate(
    weights: Path,
    section: str,
    content: str | None,
    value: Callable[[Figure], float | None],
    source: Path,
    task: TaskEvaluation,
) -> Candidate:
    values = [value(figure) for figure in task.figures]
    tie_break = value(task.tie_break) if task.tie_break is not None else 0.0
    if values[0] is None or tie_break is None:
        raise ValueError(
            f"{source}: an evaluation on {section} has no {task.figures[0].title}; delete it and evaluate again"
        )
    worst = -math.inf if task.descending else math.inf
    figures = tuple(math.nan if number is None else number for number in values)
    return Candidate(
        weights,
        (worst if math.isnan(figures[0]) else figures[0], *figures[1:]),
        math.inf if math.isnan(tie_break) else tie_break,
        section,
        content,
    )


def select(
    folder: Path, task: str, section: str | None = None, iterations: IterationRange = ANY_ITERATION
) -> tuple[list[Candidate], Candidate]:
    """Ranks a folder's results, writes `results_overall.txt` and flags the best numbered checkpoint.

    Unnumbered weights (model.net) are copies of a numbered state: they are listed, and chosen only when nothing else is.

    Returns:
        (all candidates, best first; the selected one).
    """
    candidates = rank(folder, task, section, iterations)
    selected = next((c for c in candidates if c.iteration is not None), candidates[0])
    if not math.isfinite(selected.figure):
        logger.warning("%s: no checkpoint has a finite %s", folder, EVALUATIONS[task].figures[0].title)
    files = sorted(path.name for path in folder.glob(f"results_*.net_task_{task}.txt"))
    with replacing(folder / OVERALL_NAME) as temporary:
        temporary.write_text("\n".join([*files, "", table(candidates, task)]) + "\n", encoding="utf-8")
    for stale in folder.glob("FLAG_SELECTED_ITER_*.nodata"):
        stale.unlink()
    if selected.iteration is not None:
        figure = EVALUATIONS[task].figures[0]
        with replacing(folder / f"FLAG_SELECTED_ITER_{selected.iteration:07d}.nodata") as temporary:
            temporary.write_text(
                f"{selected.weights.name} was selected by its {figure.title} of {selected.figure:.3f} {figure.unit} "
                f"on {selected.section}.\n",
                encoding="utf-8",
            )
    return candidates, selected


def table(candidates: Sequence[Candidate], task: str) -> str:
    """One line per candidate under a title."""
    titles = ", ".join(f"{figure.title} ({figure.unit})" for figure in EVALUATIONS[task].figures)
    lines = [f"{titles}; best first"]
    for candidate in candidates:
        lines.append("".join(f"{value:10.3f}" for value in candidate.figures) + f"  {candidate.weights.name}")
    return "\n".join(lines)


def runs_with_results(search_dir: Path, task: str, criteria: RunFilter) -> list[Run]:
    """Runs in a folder and below it that pass the filter and have results of the task.

    Raises:
        FileNotFoundError: there is none.
    """
    runs = find_runs(search_dir, replace(criteria, task=task))
    chosen = [run for run in runs if next(run.folder.glob(f"results_*.net_task_{task}.txt"), None) is not None]
    if not chosen:
        raise FileNotFoundError(f"no results_*.net_task_{task}.txt in the runs of {criteria} in {search_dir}")
    return chosen


def export_path(template: str, weights: Path) -> Path:
    """Fills the fields of a path template from the record of the weights.

    Fields are those of the record (scene, task, stage, kind, domain, sim_chunk, real_chunk, ...) and its options,
    `real_domain` (the domain), and `partial`: '-partial-finetuning-0.50' when the real chunk is neither 1 nor 0.

    Raises:
        ValueError: the template has fields and there is no record, or it does not know one of them.
    """
    if "{" not in template:
        return Path(template)
    advice = "give --export a path without braces"
    record = record_of(weights)
    if record is None:
        raise ValueError(f"cannot fill {template!r}: no record ({RECORD_NAME}) says what {weights} is; {advice}")
    partial = "" if record.real_chunk in (0, 1) else f"-partial-finetuning-{record.real_chunk:.2f}"
    known = {**record.options, **vars(record), "size": record.size, "real_domain": record.domain, "partial": partial}
    try:
        return Path(template.format_map({name: value for name, value in known.items() if value is not None}))
    except KeyError as error:
        raise ValueError(
            f"cannot fill {template!r}: the record of {weights} does not know its {error.args[0]}; {advice}"
        ) from None
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"cannot fill {template!r} from the record of {weights}: {error}; {advice}") from None


def export(weights: Path, target: Path) -> None:
    """Copies weights, with their record as `<stem>.json` bound to their content, making folders.

    The record is replaced first: an interruption in between leaves weights whose record is of others, which every reader
    refuses, and never weights with a wrong record.

    Raises:
        FileNotFoundError: the weights are gone.
        ValueError: the target is not named like weights.
    """
    if not weights.is_file():
        raise FileNotFoundError(f"the selected weights {weights} are not there any more")
    if target.suffix != ".net":
        raise ValueError(f"--export wants a file name that ends in .net, got {target}")
    record = record_of(weights)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as staging:
        copy = Path(staging) / target.name
        with replacing(copy) as temporary:
            shutil.copyfile(weights, temporary)
        if record is not None:
            write_sidecar(copy, record)
            os.replace(copy.with_suffix(".json"), target.with_suffix(".json"))
        else:
            target.with_suffix(".json").unlink(missing_ok=True)  # one of earlier weights would lie about these
        os.replace(copy, target)


def select_and_export(
    folders: Sequence[Path],
    task: str,
    section: str | None,
    template: str | None,
    say: Callable[[str], None],
    iterations: IterationRange = ANY_ITERATION,
) -> None:
    """Selects in every folder; exports each winner, the best one where several runs fill the same path.

    Args:
        section: of every run; `validation` and `test` stand for the one that fits it.
        say: receives the text for the user.
    Raises:
        ValueError: two runs fill the same path and were not evaluated on the same.
    """
    chosen: dict[Path, Candidate] = {}
    for folder in folders:
        of_run = None if section is None else section_for(section, run_in(folder), folder)
        candidates, selected = select(folder, task, of_run, iterations)
        say(f"{folder}\n{table(candidates[:_SHOWN], task)}\nselected: {selected.weights.name}")
        if template is None:
            continue
        target = export_path(template, selected.weights)
        chosen[target] = _better(chosen[target], selected, target, task, say) if target in chosen else selected
    for target, selected in chosen.items():
        export(selected.weights, target)
        say(f"exported: {selected.weights} -> {target}")


def _better(one: Candidate, other: Candidate, target: Path, task: str, say: Callable[[str], None]) -> Candidate:
    if (one.section, one.content) != (other.section, other.content):
        raise ValueError(
            f"{one.weights} and {other.weights} both go to {target}, but were evaluated on different contents "
            f"({one.section}, {other.section}); evaluate both again"
        )
    better = min((one, other), key=_order(EVALUATIONS[task]))
    worse = other if better is one else one
    say(
        f"{one.weights} and {other.weights} both go to {target}: the better one does, {better.weights} "
        f"({better.figure:.3f} against {worse.figure:.3f})"
    )
    return better
