"""One evaluation from options to reports."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch

from dataloader.preprocessing import DEFAULT_IMAGE_HEIGHT, Preprocessing, preprocessing_from_record, record_of
from dataloader.scenes import GREY_MEAN, GREY_STD, scene_statistics
from dataloader.section import SectionDataset
from evaluation import coord, dense
from evaluation.checkpoints import find_checkpoints
from evaluation.options import EvaluationOptions
from evaluation.overview import draw_overview
from evaluation.pictures import draw_prediction
from evaluation.predict import predictions
from evaluation.reports import section_file, write_estimated_positions, write_results
from evaluation.sections import section_dirs
from networks import TransPoseNet, load_network

logger = logging.getLogger(__name__)

_STATISTICS_SECTIONS = ("train_sim", "train_drone_sim", "train_drone_real")


def evaluate(options: EvaluationOptions, device: torch.device) -> list[Path]:
    """Evaluates every chosen weights file on every chosen section and writes the reports beside the weights.

    Returns:
        the weights files.
    Raises:
        ValueError, OSError: bad weights, data or flags; a message for the user.
    """
    sections = {section: section_dirs(options.scene_dir, section) for section in options.sections}
    checkpoints = find_checkpoints(options.network_in, options.search_dir, options.criteria)
    if options.overview is not None and len(checkpoints) != 1:
        raise ValueError(f"--overview draws one weights file, but {len(checkpoints)} were chosen")
    for folder in sorted({weights.parent for weights in checkpoints}):
        _check_writable(folder)
    for weights in checkpoints:
        net = load_network(weights)
        check_architecture(net, options, weights)
        preprocessing = choose_preprocessing(net, weights, options)
        for section, folders in sections.items():
            dataset = SectionDataset(folders, options.task, preprocessing.image_height)
            report = _evaluate_section(net, weights, section, dataset, preprocessing, options, device)
            logger.info("%s\n%s", weights, report)
    return checkpoints


def check_architecture(net: TransPoseNet, options: EvaluationOptions, weights: Path) -> None:
    """Raises ValueError when the task or a flag contradicts the weights."""
    found = net.architecture
    if found.task != options.task:
        raise ValueError(f"{weights} is a network for the task {found.task}, not for --task {options.task}")
    for name, value in options.asserted.items():
        if getattr(found, name) != value:
            raise ValueError(f"{weights} has {name} = {getattr(found, name)}, but a flag says {value}")


def choose_preprocessing(net: TransPoseNet, weights: Path, options: EvaluationOptions) -> Preprocessing:
    """Image size and normalisation as in training: from the record beside the weights, else from the scene.

    Raises:
        ValueError: the record contradicts the weights or the scene has no statistics.
    """
    grayscale = net.architecture.in_channels == 1
    record = record_of(weights)
    if record is not None:
        if record.get("scene") != options.scene:
            logger.warning("%s was trained on the scene %s, not on %s", weights, record.get("scene"), options.scene)
        preprocessing = preprocessing_from_record(record["preprocessing"])
        if preprocessing.grayscale != grayscale:
            raise ValueError(f"the training record of {weights} says grayscale = {preprocessing.grayscale}; it is not")
    elif grayscale:
        preprocessing = Preprocessing(DEFAULT_IMAGE_HEIGHT, True, GREY_MEAN, GREY_STD)
    else:
        measured = [options.scene_dir / name for name in _STATISTICS_SECTIONS if (options.scene_dir / name).is_dir()]
        statistics = scene_statistics(options.scene, options.scene_dir, measured)
        preprocessing = Preprocessing(DEFAULT_IMAGE_HEIGHT, False, statistics.rgb_mean, statistics.rgb_std)
    return replace(preprocessing, image_height=options.image_height or preprocessing.image_height)


def _evaluate_section(
    net: TransPoseNet,
    weights: Path,
    section: str,
    dataset: SectionDataset,
    preprocessing: Preprocessing,
    options: EvaluationOptions,
    device: torch.device,
) -> str:
    stream = predictions(
        net, dataset, preprocessing, device=device, num_workers=options.num_workers, title=f"{weights.stem} {section}"
    )
    is_coord = options.task == "coord"
    results = coord.coord_results(stream, options.solver) if is_coord else dense.dense_results(stream, options.task)
    figures = coord.CoordFigures() if is_coord else dense.DenseFigures(options.task)
    pred_folder = _folder(weights.parent / f"{options.task}_pred_{weights.stem}_{section}") if options.save_pred else None
    plot_folder = _folder(section_file(weights, section, f"{options.task}_plots")) if options.plot else None
    kept, names = [], []
    for result in results:
        figures.add(result)
        # In a group of sections the same stem occurs more than once.
        is_group = len(set(dataset.section_of)) > 1
        names.append(result.stem.replace("/", "_") if is_group else result.stem.rpartition("/")[2])
        if pred_folder is not None and is_coord:
            coord.save_prediction(result, pred_folder / f"{names[-1]}.npz")
        elif pred_folder is not None:
            dense.save_prediction(result, options.task, pred_folder / f"{names[-1]}.npz")
        if plot_folder is not None:
            draw_prediction(result, options.task, plot_folder / f"{names[-1]}.png")
        if options.overview is not None:
            kept.append(result)

    settings = {"scene": options.scene, "preprocessing": asdict(preprocessing), "architecture": asdict(net.architecture)}
    if is_coord:
        settings["solver"] = asdict(options.solver)
        write_estimated_positions(weights, section, names, figures.positions_N3)
    if options.overview is not None:
        draw_overview(kept, figures.summary(), f"{options.scene}, {section}, {weights.stem}", options.overview)
    return write_results(weights, options.task, section, figures.summary(), settings, figures.rows)


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
