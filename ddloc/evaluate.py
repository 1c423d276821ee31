"""Evaluation of a chain on sections, by the common reports."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from dataloader.geometry_check import check_geometry
from dataloader.section import SectionDataset
from ddloc.chain import load_chain, unnormalised
from ddloc.options import Place
from ddloc.weights import best_path, record_in_stage
from evaluation.coord import CoordFigures, coord_results
from evaluation.overview import draw_overview
from evaluation.predict import predictions
from evaluation.reports import Subject, weights_fingerprint, write_estimated_positions, write_results
from evaluation.sections import section_dirs
from localization.solving import SolverOptions
from records.options import option
from runs.device import choose_device, resolved_precision
from runs.record import section_record

logger = logging.getLogger(__name__)

ENDS = ("C", "joint", "finetune")


@dataclass(frozen=True, kw_only=True)
class ChainOptions(Place):
    """One evaluation of a chain."""

    stage: str = option("finetune", choices=ENDS, help="whose regressor; C: without translation", group="evaluation")
    section: tuple[str, ...] = option(("test_drone_real",), metavar="S", help="sections of the scene, or groups of them")
    solver: SolverOptions = field(default_factory=SolverOptions)
    overview: Path | None = option(
        None, decides=False, metavar="PICTURE", help="one picture of the whole (one section)", group="output"
    )


def evaluate_chain(options: ChainOptions) -> list[str]:
    """Writes the reports of every section beside the regressor's best weights; returns their blocks.

    Raises:
        ValueError, OSError: a stage is not finished, a section is missing or bad, or the reports cannot be written.
    """
    if options.overview is not None and len(options.section) != 1:
        raise ValueError("--overview draws one section")
    device = choose_device(options.device)
    record = record_in_stage(options.project_dir, options.stage)
    chain, image_height = load_chain(options.project_dir, options.stage, device)
    precision = resolved_precision(device, record.options["precision"])
    weights = best_path(options.project_dir / options.stage, "C")
    settings = {
        "scene": options.scene,
        "chain": {parent.role: parent.fingerprint for parent in record.parents},
        "preprocessing": record.preprocessing,
        "precision": precision,
        "solver": options.solver,
    }
    blocks = []
    for section in options.section:
        folders = section_dirs(options.scene_dir, section)
        dataset = SectionDataset(folders, "coord", image_height)
        check_geometry(dataset)
        contents = tuple(section_record(f, "init", dataset.section_of.count(f.name)) for f in folders)
        subject = Subject(section, weights_fingerprint(weights), contents, settings)
        stream = predictions(
            chain,
            dataset,
            unnormalised(image_height),
            device=device,
            precision=precision,
            title=f"{options.stage} {section}",
        )
        figures, kept = CoordFigures(), []
        for result in coord_results(stream, options.solver):
            figures.add(result)
            if options.overview is not None:
                kept.append(result)
        # In a group of sections the same name occurs more than once.
        prefixes = [f"{name}/" if len(folders) > 1 else "" for name in dataset.section_of]
        names = [prefix + files.image.name for prefix, files in zip(prefixes, dataset.files)]
        write_estimated_positions(weights, section, names, figures.positions_N3)
        if options.overview is not None:
            draw_overview(kept, figures.summary(), f"{options.scene}, {section}, DDLoc", options.overview)
        blocks.append(write_results(weights, "coord", subject, figures.summary(), figures.rows))
        logger.info("%s\n%s", weights, blocks[-1])
    return blocks
