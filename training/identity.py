"""The record of a run that is about to start: what its options and its data make of it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from dataloader.preprocessing import Preprocessing
from dataloader.scenes import PUBLISHED_SCENES, SceneStatistics, measure
from dataloader.section import SectionDataset
from records import fingerprint
from records.files import read_json
from records.options import deciding
from runs.preprocessing import preprocessing_for, preprocessing_from_statistics
from runs.record import CameraRecord, ParentRecord, RunRecord, record_of, section_record, software_versions
from tasks import TASKS
from training.names import run_name
from training.options import TrainingOptions

SCENE_FILE = "scene.json"
_PUBLISHED_CHUNK = re.compile(r"model-sc-(\d\.\d\d)")
_CAMERA_SAMPLES = 24


def build_record(
    options: TrainingOptions, sections: list[Path], dataset: SectionDataset, previous: RunRecord | None
) -> RunRecord:
    """The record of the run that `options` ask for.

    Args:
        sections: folders of the training sections; `dataset` holds their samples.
        previous: the record that the run's folder holds already; spares measuring the same sections again.
    Raises:
        ValueError, OSError: a section, the starting weights or their record cannot be read.
    """
    for flag, path in options.starting_weights.items():
        if not path.is_file():
            raise FileNotFoundError(f"{flag}: weights file not found: {path}")
    label_folder = TASKS[options.task].label_folder
    recorded = tuple(section_record(s, label_folder, dataset.section_of.count(s.name)) for s in sections)
    known = previous is not None and previous.sections == recorded
    statistics = previous.statistics if known else statistics_of(options.scene, sections)
    cameras = previous.cameras if known else cameras_of(dataset)
    sim_only = options.real_data_chunk == 0
    kept = deciding(options)
    if sim_only:
        kept |= {"real_data_domain": "in_place", "real_only": False}  # without real photos they mean nothing
    return RunRecord(
        name=run_name(options),
        scene=options.scene,
        task=options.task,
        stage=options.stage,
        kind="sim_only" if sim_only else "real_only" if options.real_only else "pairs",
        domain=None if sim_only else options.real_data_domain,
        sim_chunk=_sim_chunk(options),
        real_chunk=options.real_data_chunk,
        architecture=options.architecture,
        options=kept,
        sections=recorded,
        images_per_epoch=len(dataset),
        preprocessing=_preprocessing(options, statistics),
        statistics=statistics,
        frame=frame_of(options.scene_dir),
        cameras=cameras,
        parents=tuple(parent_record(flag, path) for flag, path in options.starting_weights.items()),
        software=software_versions(),
        geodata=geodata_of(options.scene_dir),
    )


def statistics_of(scene: str, sections: list[Path]) -> SceneStatistics:
    """Published constants of the benchmark scenes; of any other scene, measured on the run's own sections."""
    return PUBLISHED_SCENES.get(scene) or measure(sections)


def parent_record(role: str, weights: Path) -> ParentRecord:
    """What a run keeps of the weights it starts from."""
    record = record_of(weights)
    return ParentRecord(role, str(weights), fingerprint.of_file(weights), record.name if record else None)


def frame_of(scene_dir: Path) -> dict | None:
    """The coordinate frame that the data set declares: everything of `scene.json` but sections and geodata."""
    path = scene_dir / SCENE_FILE
    if not path.is_file():
        return None
    return {key: value for key, value in read_json(path, "scene file").items() if key not in ("sections", "geodata")}


def geodata_of(scene_dir: Path) -> dict | None:
    """The map that the data set was made from, with the folder that its paths start from; None where it does not say."""
    path = scene_dir / SCENE_FILE
    geodata = read_json(path, "scene file").get("geodata") if path.is_file() else None
    return geodata and {**geodata, "scene_dir": str(scene_dir.resolve())}


def cameras_of(dataset: SectionDataset) -> CameraRecord:
    """Focal lengths and aspect ratios of evenly spread samples."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, _CAMERA_SAMPLES).astype(int))
    views = [dataset[int(index)].view for index in chosen]
    focal = [float(v.K_33[0, 0]) / min(v.image_HW3.shape[:2]) for v in views]
    aspect = [v.image_HW3.shape[1] / v.image_HW3.shape[0] for v in views]
    return CameraRecord(min(focal), max(focal), min(aspect), max(aspect))


def _preprocessing(options: TrainingOptions, statistics: SceneStatistics) -> Preprocessing:
    """As the starting weights were trained; from scratch, by the flags and the scene's colours.

    Raises:
        ValueError: the encoders to be fused were trained on differently normalised images.
    """
    if not options.starting_weights:
        return preprocessing_from_statistics(statistics, grayscale=options.grayscale, image_height=options.image_height)
    inherited = {
        flag: preprocessing_for(
            path,
            grayscale=options.grayscale,
            scene=options.scene,
            scene_dir=options.scene_dir,
            image_height=options.image_height,
        )
        for flag, path in options.starting_weights.items()
    }
    first, chosen = next(iter(inherited.items()))
    for flag, other in inherited.items():
        if (other.rgb_mean, other.rgb_std) != (chosen.rgb_mean, chosen.rgb_std):
            raise ValueError(
                f"the weights of {first} and {flag} were trained on differently normalised images: colours "
                f"{chosen.rgb_mean} / {chosen.rgb_std} against {other.rgb_mean} / {other.rgb_std}"
            )
    return chosen


def _sim_chunk(options: TrainingOptions) -> float | None:
    """The synthetic share that the network has seen, be it before this run; None when nothing says so."""
    if not options.starting_weights:
        return options.sim_data_chunk
    first = next(iter(options.starting_weights.values()))
    parent = record_of(first)
    if parent is not None:
        return parent.sim_chunk
    published = _PUBLISHED_CHUNK.match(first.name)
    return float(published[1]) if published else None
