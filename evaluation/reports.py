"""What an evaluation leaves beside the weights: the published text, and the same figures for machines."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.refined import RefinedSummary
from evaluation.task_table import EVALUATIONS
from evaluation.wording import section_header
from records import fingerprint
from records.files import locked, plain, read_json, replacing, write_json
from runs.record import SectionRecord

# The published texts of the tasks.
REPORTS = {task: evaluation.report for task, evaluation in EVALUATIONS.items()}


@dataclass(frozen=True)
class Subject:
    """What a result is bound to.

    Attributes:
        section: its name, or that of a group of sections.
        weights_fingerprint: of the weights file.
        sections: the sections that were read, with the fingerprints of their contents.
        settings: everything else that decides the figures.
    """

    section: str
    weights_fingerprint: str
    sections: tuple[SectionRecord, ...]
    settings: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """JSON form; two results with equal forms are results of the same thing."""
        return {
            "section": self.section,
            "weights_fingerprint": self.weights_fingerprint,
            "section_fingerprint": self.section_fingerprint,
            "sections": plain(list(self.sections)),
            "settings": plain(self.settings),
        }

    @property
    def section_fingerprint(self) -> str:
        """Of the section's content; of all contents for a group."""
        contents = {section.name: section.fingerprint for section in self.sections}
        return next(iter(contents.values())) if len(contents) == 1 else fingerprint.of_value(contents)


def weights_fingerprint(weights: Path) -> str:
    """Fingerprint of a weights file; it is hashed once, and again when it changed."""
    return fingerprint.digests({weights.name: weights}, cache_dir=weights.parent)[weights.name]


def results_path(weights: Path, task: str) -> Path:
    """The text report of a weights file; its twin for machines ends in .json."""
    return weights.parent / f"results_{weights.name}_task_{task}.txt"


def twin_of(report: Path) -> Path:
    """The JSON twin of a text report."""
    return report.with_name(report.name.removesuffix(".txt") + ".json")


def section_file(weights: Path, section: str, ending: str) -> Path:
    """A file beside the weights that belongs to one section."""
    return weights.parent / f"{section}_{weights.name}_{ending}"


def write_results(
    weights: Path,
    task: str,
    subject: Subject,
    summary: Any,
    rows: Sequence[Mapping[str, Any]],
    refined: RefinedSummary | None = None,
) -> str:
    """Appends a section's block to the text report and to its JSON twin, and writes one CSV row per image.

    What the map made of the poses stands in a line of its own after the published text, and in the twin.

    Other processes may do the same at the same time: nothing is lost. Each file appears complete or not at all.

    Returns:
        the block, as text.
    Raises:
        ValueError: the twin is damaged; names it, and nothing is written.
    """
    block = f"{section_header(subject.section)}\n{REPORTS[task](summary)}\n" + (f"{refined}\n" if refined else "")
    report = results_path(weights, task)
    twin = twin_of(report)
    with locked(report):
        evaluations = read_evaluations(twin) if twin.is_file() else []
        earlier = report.read_text(encoding="utf-8") if report.is_file() else ""
        with replacing(section_file(weights, subject.section, f"task_{task}.csv")) as temporary:
            temporary.write_text(_table(rows), encoding="utf-8")
        with replacing(report) as temporary:
            temporary.write_text(earlier + block, encoding="utf-8")
        entry = {**subject.to_json(), "time": datetime.now(timezone.utc).isoformat(), "summary": plain(summary)}
        if refined is not None:
            entry["refined"] = plain(refined)
        write_json(twin, {"weights": weights.name, "task": task, "evaluations": [*evaluations, entry]})
    return block


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_evaluations(twin: Path) -> list[dict[str, Any]]:
    """The evaluations kept in a JSON twin, oldest first.

    Raises:
        ValueError: the file is damaged; names it.
    """
    try:
        evaluations = read_json(twin, "results file")["evaluations"]
        if not all(isinstance(entry, dict) for entry in evaluations):
            raise TypeError("an evaluation is no object")
        return list(evaluations)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"results file {twin} is damaged ({error}); delete it and evaluate again") from None


def was_evaluated(weights: Path, task: str, subject: Subject) -> bool:
    """Whether a result of the same weights, section and settings, by their contents, is there already."""
    twin = twin_of(results_path(weights, task))
    wanted = subject.to_json()
    entries = read_evaluations(twin) if twin.is_file() else []
    return any({key: entry.get(key) for key in wanted} == wanted for entry in entries)


def write_estimated_positions(weights: Path, section: str, names: Sequence[str], positions_N3: np.ndarray) -> None:
    """Writes the estimated camera centres as [n, 3] array and as text, `file x y z` with 2 decimals; nan without pose."""
    array = section_file(weights, section, "out_xyz_poses.npy")
    with replacing(array) as temporary, temporary.open("wb") as stream:
        np.save(stream, positions_N3)
    with replacing(section_file(weights, section, "out_xyz_poses.txt")) as temporary:
        lines = (f"{name} {x:.2f} {y:.2f} {z:.2f}\n" for name, (x, y, z) in zip(names, positions_N3, strict=True))
        temporary.write_text("".join(lines), encoding="utf-8")


def save_arrays(arrays: Mapping[str, Any], path: Path) -> None:
    """Writes an .npz."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
