"""One evaluation from options to reports."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataloader.geometry_check import check_geometry
from dataloader.preprocessing import DEFAULT_IMAGE_HEIGHT, Preprocessing
from dataloader.section import SectionDataset
from evaluation.checkpoints import Weights, find_weights, named_encoders
from evaluation.coord import coord_results
from evaluation.dense import dense_results
from evaluation.gathered import Gathered
from evaluation.html_report import write_html_report
from evaluation.options import EvaluationOptions
from evaluation.overview import draw_overview
from evaluation.predict import predictions_of_many
from evaluation.refining import open_map, refined_results
from evaluation.reports import (
    Subject,
    was_evaluated,
    weights_fingerprint,
    write_estimated_positions,
    write_results,
)
from evaluation.sections import section_dirs, section_for
from evaluation.task_table import EVALUATIONS
from evaluation.trust import TrustFigures, learn_calibration, write_metrics
from localization.calibration import write_calibration
from localization.forward import precision_for
from localization.matchers import matcher_of
from networks import load_network
from networks.architecture import Architecture
from records.files import check_writable
from runs.preprocessing import preprocessing_for
from runs.record import SectionRecord, section_record
from tasks import TASKS

logger = logging.getLogger(__name__)

# Weights files in memory at once: photos are decoded and prepared once for all of them.
_NETWORKS_AT_ONCE = 8


@dataclass
class Outcome:
    """What became of the chosen weights files.

    Attributes:
        evaluated: those with new results. skipped: (weights, section) whose results were there already.
        damaged: files that could not be read, with the reason.
    """

    evaluated: list[Path] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    damaged: dict[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Section:
    """A section to evaluate on, or a group of them."""

    name: str
    folders: list[Path]
    contents: tuple[SectionRecord, ...]


@dataclass(frozen=True)
class _Candidate:
    """A weights file to be evaluated on one section."""

    net: nn.Module
    weights: Path
    section: _Section
    subject: Subject


def evaluate(options: EvaluationOptions, device: torch.device) -> Outcome:
    """Evaluates every chosen weights file on every chosen section and writes the reports beside the weights.

    A weights file that cannot be read is passed over with a message where others can.

    Raises:
        ValueError, OSError: bad data or flags, or no weights file that can be read; a message for the user.
    """
    precision_for(None, device, options.precision)  # refuses what the device cannot do
    chosen = find_weights(options)
    if options.overview is not None and len(chosen) != 1:
        raise ValueError(f"--overview draws one weights file, but {len(chosen)} were chosen")
    if options.report is not None and len(chosen) != 1:
        raise ValueError(f"--report shows one weights file, but {len(chosen)} were chosen")
    wanted = {w.path: list(dict.fromkeys(section_for(s, w.run, w.path) for s in options.section)) for w in chosen}
    sections = {name: _open_section(options, name) for name in dict.fromkeys(itertools.chain(*wanted.values()))}
    for weights in chosen:
        if weights.run is not None and weights.run.record is not None:
            check_architecture(weights.run.record.architecture, options, weights.path)
    for folder in sorted({weights.path.parent for weights in chosen}):
        check_writable(folder, "results")
    for picture in filter(None, (options.report, options.overview)):
        check_writable(picture.parent, picture.name)

    evaluation = _Evaluation(options, device)
    for weights in chosen:
        record = None if weights.run is None else weights.run.record
        if evaluation.map is not None and record is not None and record.scene == options.scene:
            evaluation.map.check_place(record.statistics.mean_coord)
    for start in range(0, len(chosen), _NETWORKS_AT_ONCE):
        group = chosen[start : start + _NETWORKS_AT_ONCE]
        evaluation.of_weights([(weights, [sections[name] for name in wanted[weights.path]]) for weights in group])
    damaged = evaluation.outcome.damaged
    if damaged and len(damaged) == len(chosen):
        raise ValueError("; ".join(damaged.values()))
    return evaluation.outcome


def check_architecture(found: Architecture, options: EvaluationOptions, weights: Path) -> None:
    """Raises ValueError when the task or a flag contradicts the weights."""
    if found.task != options.task:
        raise ValueError(f"{weights} is a network for the task {found.task}, not for --task {options.task}")
    for name, value in options.asserted.items():
        if getattr(found, name) != value:
            raise ValueError(f"{weights} has {name} = {getattr(found, name)}, but a flag says {value}")


def _check_name(weights: Path, found: Architecture) -> None:
    """A name decides nothing, but one that says something else than the file may be a mistake of whoever named it."""
    named = named_encoders(weights)
    if named is not None and named != found.num_encoders:
        logger.warning("%s is named like a network of %d encoders, but holds %d", weights, named, found.num_encoders)


def _open_section(options: EvaluationOptions, name: str) -> _Section:
    """The section, after a look at whether its labels, poses and calibrations belong together."""
    folders = section_dirs(options.scene_dir, name)
    contents = []
    for folder in folders:
        samples = SectionDataset([folder], options.task, options.image_height or DEFAULT_IMAGE_HEIGHT)
        check_geometry(samples)
        contents.append(section_record(folder, TASKS[options.task].label_folder, len(samples)))
    return _Section(name, folders, tuple(contents))


class _Evaluation:
    """What stays the same from one weights file to the next."""

    def __init__(self, options: EvaluationOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        self.pictures_whole = options.overview is not None or options.report is not None
        # Opened first: geodata of another place are refused before the work, not after it.
        self.matcher = matcher_of(options.refine, device) if options.refines else None
        self.map = None
        if options.surface or options.refines:
            self.map = open_map(options.surface, options.ortho, options.scene_dir)
        self.outcome = Outcome()
        self._without_record: dict[bool, Preprocessing] = {}

    def of_weights(self, chosen: Sequence[tuple[Weights, list[_Section]]]) -> None:
        """Evaluates weights files on their sections: those that see the same images in one pass over a section."""
        passes: dict[tuple, list[_Candidate]] = {}
        for weights, sections in chosen:
            try:
                net = load_network(weights.path)
            except ValueError as error:
                self.outcome.damaged[weights.path] = str(error)
                logger.error("cannot be read, passed over: %s", error)
                continue
            for candidate in self._candidates(weights, net, sections):
                settings = candidate.subject.settings
                alike = candidate.section.name, settings["preprocessing"], settings["precision"], net.architecture.fullsize
                passes.setdefault(alike, []).append(candidate)
        for candidates in passes.values():
            for candidate, report in zip(candidates, self._in_one_pass(candidates), strict=True):
                logger.info("%s\n%s", candidate.weights, report)
                if candidate.weights not in self.outcome.evaluated:
                    self.outcome.evaluated.append(candidate.weights)

    def _candidates(self, weights: Weights, net: nn.Module, sections: list[_Section]) -> Iterator[_Candidate]:
        """What is to be evaluated of a weights file."""
        options = self.options
        check_architecture(net.architecture, options, weights.path)
        _check_name(weights.path, net.architecture)
        settings, content = self._settings(weights, net), weights_fingerprint(weights.path)
        asks_for_files = options.plot or options.save_pred or options.calibrate or self.pictures_whole
        for section in sections:
            subject = Subject(section.name, content, section.contents, settings)
            if options.resume and not asks_for_files and was_evaluated(weights.path, options.task, subject):
                logger.info("%s on %s: evaluated already", weights.path, section.name)
                self.outcome.skipped.append((weights.path, section.name))
            else:
                yield _Candidate(net, weights.path, section, subject)

    def _settings(self, weights: Weights, net: nn.Module) -> dict[str, Any]:
        """Everything that decides the figures, besides weights and data."""
        options, record = self.options, weights.run.record if weights.run is not None else None
        if record is not None and record.scene != options.scene.removesuffix("-fullsize"):
            logger.warning("%s was trained on the scene %s, not on %s", weights.path, record.scene, options.scene)
        settings = {
            "scene": options.scene,
            "preprocessing": self._preprocessing(weights, net.architecture.in_channels == 1),
            "architecture": net.architecture,
            "precision": precision_for(record, self.device, options.precision),
        }
        if EVALUATIONS[options.task].measure is None:
            settings["solver"] = options.solver
        if self.map is not None and options.refines:
            if record is not None:
                self.map.check_place(record.statistics.mean_coord)
            settings["refinement"] = {
                "by": options.refine or "ncc",
                "height": options.refine_height,
                "geodata": self.map.contents,
            }
        return settings

    def _preprocessing(self, weights: Weights, grayscale: bool) -> Preprocessing:
        def choose() -> Preprocessing:
            return preprocessing_for(
                weights.path,
                grayscale=grayscale,
                scene=self.options.scene,
                scene_dir=self.options.scene_dir,
                image_height=self.options.image_height,
            )

        if weights.run is not None and weights.run.record is not None:
            return choose()
        if grayscale not in self._without_record:  # colours may have to be measured: once for all
            self._without_record[grayscale] = choose()
        return self._without_record[grayscale]

    def _in_one_pass(self, candidates: list[_Candidate]) -> list[str]:
        """Predicts, measures and writes; returns the reports' blocks."""
        options, task = self.options, self.options.task
        first = candidates[0]
        section, folders, settings = first.section.name, first.section.folders, first.subject.settings
        dataset = SectionDataset(folders, task, settings["preprocessing"].image_height)
        stream = predictions_of_many(
            [candidate.net for candidate in candidates],
            dataset,
            settings["preprocessing"],
            device=self.device,
            precision=settings["precision"],
            num_workers=options.num_workers,
            title=f"{first.weights.name if len(candidates) == 1 else f'{len(candidates)} networks'} {section}",
        )
        solves_poses = EVALUATIONS[task].measure is None
        results = coord_results(stream, options.solver) if solves_poses else dense_results(stream, task)
        if self.map is not None and options.refines:
            results = refined_results(results, dataset, self.map, options.refine_height, self.matcher)
        gathered = [Gathered.of(candidate.weights, candidate.section.name, dataset, options) for candidate in candidates]
        for result in results:
            gathered[result.network].add(result, keep=self.pictures_whole)
        return [self._write(candidate, results, dataset) for candidate, results in zip(candidates, gathered, strict=True)]

    def _write(self, candidate: _Candidate, gathered: Gathered, dataset: SectionDataset) -> str:
        """Writes the results of one weights file on a section; returns the report's block."""
        options, task, weights, section = self.options, self.options.task, candidate.weights, candidate.section.name
        figures, trust, title = gathered.figures, gathered.trust, f"{options.scene}, {section}, {weights.stem}"
        if figures.positions_N3 is not None:
            names = _image_names(dataset, len(candidate.section.folders) > 1)
            write_estimated_positions(weights, section, names, figures.positions_N3)
        if trust is not None:
            trusts = [trust] if not options.refines else [trust, gathered.refined_trust]
            if options.calibrate:
                for of_stage in trusts:
                    self._calibrate(weights, candidate.subject, of_stage)
            write_metrics(weights, candidate.subject, *trusts)
        if options.overview is not None:
            draw_overview(gathered.kept, figures.summary(), title, options.overview)
        if options.report is not None:
            scene = None if self.map is None else self.map.scene
            write_html_report(
                gathered.kept, trust, gathered.refined_trust, options.solver.threshold, title, options.report, scene
            )
            logger.info("report: %s", options.report)
        refined = figures.refined if options.refines else None
        return write_results(weights, task, candidate.subject, figures.summary(), figures.rows, refined)

    def _calibrate(self, weights: Path, subject: Subject, trust: TrustFigures) -> None:
        """Learns a calibration from what a section gave, keeps it beside the weights and judges the section by it."""
        calibration = learn_calibration(trust, subject, self.options.error_bound)
        path = write_calibration(weights, calibration, trust.stage)
        logger.info("%s, %s poses: %s", path, trust.stage, calibration)
        trust.judge_by(calibration)


def _image_names(dataset: SectionDataset, with_section: bool) -> list[str]:
    """File names with extension, as published; those of a group of sections say which."""
    names = [files.image.name for files in dataset.files]
    return [f"{s}/{n}" for s, n in zip(dataset.section_of, names, strict=True)] if with_section else names
