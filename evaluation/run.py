"""One evaluation from options to reports."""

from __future__ import annotations

import itertools
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dataloader.geometry_check import check_geometry
from dataloader.preprocessing import DEFAULT_IMAGE_HEIGHT, Preprocessing
from dataloader.section import SectionDataset
from evaluation.checkpoints import Weights, find_weights
from evaluation.coord import CoordFigures, coord_results
from evaluation.dense import DenseFigures, dense_results
from evaluation.html_report import write_html_report
from evaluation.options import EvaluationOptions
from evaluation.overview import draw_overview
from evaluation.pictures import draw_prediction
from evaluation.predict import predictions
from evaluation.refining import open_map, refined_results
from evaluation.reports import (
    Subject,
    save_arrays,
    section_file,
    was_evaluated,
    weights_fingerprint,
    write_estimated_positions,
    write_results,
)
from evaluation.sections import section_dirs, section_for
from evaluation.task_table import EVALUATIONS
from evaluation.trust import TrustFigures, learn_calibration, write_metrics
from localization.calibration import calibration_of, write_calibration
from localization.forward import precision_for
from networks import load_network
from networks.architecture import Architecture
from runs.preprocessing import preprocessing_for
from runs.record import SectionRecord, section_record
from tasks import TASKS

logger = logging.getLogger(__name__)


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
        _check_writable(folder)

    evaluation = _Evaluation(options, device)
    for weights in chosen:
        evaluation.of_weights(weights, [sections[name] for name in wanted[weights.path]])
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
        wants_map = bool(options.surface) and (self._refines or options.report is not None)
        geodata = open_map(options.surface, options.ortho, options.scene_dir) if wants_map else None
        self.map = geodata if self._refines else None
        self.scene = None if geodata is None else geodata.scene
        self.outcome = Outcome()
        self._without_record: dict[bool, Preprocessing] = {}

    @property
    def _refines(self) -> bool:
        return self.options.refines and EVALUATIONS[self.options.task].measure is None

    def of_weights(self, weights: Weights, sections: list[_Section]) -> None:
        """Evaluates one weights file on its sections."""
        options = self.options
        try:
            net = load_network(weights.path)
        except ValueError as error:
            self.outcome.damaged[weights.path] = str(error)
            logger.error("cannot be read, passed over: %s", error)
            return
        check_architecture(net.architecture, options, weights.path)
        settings = self._settings(weights, net)
        content = weights_fingerprint(weights.path)
        asks_for_files = options.plot or options.save_pred or options.calibrate or self.pictures_whole
        for section in sections:
            subject = Subject(section.name, content, section.contents, settings)
            if options.resume and not asks_for_files and was_evaluated(weights.path, options.task, subject):
                logger.info("%s on %s: evaluated already", weights.path, section.name)
                self.outcome.skipped.append((weights.path, section.name))
                continue
            report = self._of_section(net, weights.path, subject, section.folders)
            logger.info("%s\n%s", weights.path, report)
            if weights.path not in self.outcome.evaluated:
                self.outcome.evaluated.append(weights.path)

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
        if self.map is not None:
            if record is not None:
                self.map.check_place(record.statistics.mean_coord)
            settings["refinement"] = {"height": options.refine_height, "geodata": self.map.contents}
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

    def _of_section(self, net: nn.Module, weights: Path, subject: Subject, folders: list[Path]) -> str:
        """Predicts, measures and writes; returns the report's block."""
        options, section, task = self.options, subject.section, self.options.task
        preprocessing = subject.settings["preprocessing"]
        dataset = SectionDataset(folders, task, preprocessing.image_height)
        stream = predictions(
            net,
            dataset,
            preprocessing,
            device=self.device,
            precision=subject.settings["precision"],
            num_workers=options.num_workers,
            title=f"{weights.name} {section}",
        )
        solves_poses = EVALUATIONS[task].measure is None
        trust, refined_trust = self._trust(weights, "coarse"), self._trust(weights, "refined")
        results = coord_results(stream, options.solver) if solves_poses else dense_results(stream, task)
        if self.map is not None:
            results = refined_results(results, dataset, self.map, options.refine_height)
        figures = CoordFigures() if solves_poses else DenseFigures(task)
        pred_folder = _folder(weights.parent / f"{task}_pred_{weights.name}_{section}") if options.save_pred else None
        plot_folder = _folder(section_file(weights, section, f"{task}_plots")) if options.plot else None
        kept = []
        for files, result in zip(dataset.files, results, strict=True):
            figures.add(result)
            if solves_poses:
                trust.add(result, files.image)
                refined_trust.add(result, files.image)
            # In a group of sections the same stem occurs more than once.
            name = result.stem.replace("/", "_") if len(folders) > 1 else result.stem.rpartition("/")[2]
            if pred_folder is not None:
                save_arrays(result.arrays(task), pred_folder / f"{name}.npz")
            if plot_folder is not None:
                draw_prediction(result, EVALUATIONS[task].draw, plot_folder / f"{name}.png")
            if self.pictures_whole:
                kept.append(result)

        title = f"{options.scene}, {section}, {weights.stem}"
        if figures.positions_N3 is not None:
            write_estimated_positions(weights, section, _image_names(dataset, len(folders) > 1), figures.positions_N3)
        if solves_poses:
            if options.calibrate:
                self._calibrate(weights, subject, trust)
                if self.map is not None:
                    self._calibrate(weights, subject, refined_trust)
            write_metrics(weights, subject, trust, refined_trust if self.map is not None else None)
        if options.overview is not None:
            draw_overview(kept, figures.summary(), title, options.overview)
        if options.report is not None:
            write_html_report(kept, trust, refined_trust, options.solver.threshold, title, options.report, self.scene)
            logger.info("report: %s", options.report)
        refined = figures.refined if solves_poses else None
        return write_results(weights, task, subject, figures.summary(), figures.rows, refined)

    def _trust(self, weights: Path, stage: str) -> TrustFigures:
        """An empty collection of records, with the calibration that is obeyed; none where one is learned."""
        obeys = EVALUATIONS[self.options.task].measure is None and not self.options.calibrate
        return TrustFigures(calibration_of(weights, stage) if obeys else None, stage)

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


def _check_writable(folder: Path) -> None:
    """Finds out before the work, not after it, that the reports cannot be written."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write results into {folder}: {error.strerror}") from None


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path
