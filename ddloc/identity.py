"""The record of a stage: what its options, its data and the stages before it make of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dataloader.geometry_check import check_geometry
from dataloader.preprocessing import Preprocessing
from dataloader.scenes import SceneStatistics
from dataloader.section import SectionDataset
from ddloc.chain import colours, unnormalised
from ddloc.options import StageOptions
from ddloc.pairs import Pairs
from ddloc.perceptual import available_source
from ddloc.translated import check_translated, translated_dir
from ddloc.weights import best_path, record_in_stage
from records.options import deciding
from runs.record import RunRecord, record_of, section_record, software_versions
from training.identity import cameras_of, frame_of, geodata_of, parent_record, statistics_of

_TASK = "ddloc"
# Which best weights a stage begins with or looks through: (stage, network).
_PARENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "C": (),
    "T": (),
    "A": (),
    "I": (("C", "C"), ("T", "T"), ("A", "A")),
    "joint": (("C", "C"), ("T", "T"), ("A", "A"), ("I", "I")),
    "finetune": (("joint", "C"), ("joint", "A"), ("T", "T"), ("I", "I")),
}
# Sections that a stage holds at most: three for training, two for validation.
_SECTIONS_AT_ONCE = 5
# What all stages of a project have in common.
_COMMON = ("scene", "real_data_domain", "width")
# And what those have that know the regressor: T and A do for any.
_COMMON_OF_REGRESSOR = ("img_normalize", "regressor", "tiny")


@dataclass(frozen=True)
class StageData:
    """What a stage is trained and validated on.

    Attributes:
        training: sections of the pairs. validation_photos, validation_renders: of the same places.
    """

    pairs: Pairs
    training: dict[Path, SectionDataset]
    validation_photos: SectionDataset
    validation_renders: SectionDataset

    @property
    def sections(self) -> dict[Path, SectionDataset]:
        """All of them, by their folders."""
        validation = (self.validation_photos, self.validation_renders)
        return self.training | {dataset.files[0].image.parent.parent: dataset for dataset in validation}


def open_data(options: StageOptions) -> StageData:
    """The stage's sections, after a look at whether labels, poses and calibrations belong together.

    Raises:
        ValueError, OSError: a section is missing or bad; names it.
    """
    flight = "drone" if options.real_data_domain == "in_place" else "oop_drone"
    scene_dir = options.scene_dir
    real = scene_dir / f"train_{flight}_real"
    if options.stage == "finetune":
        check_translated(options.project_dir, real)
        real = translated_dir(options.project_dir, real)
    epochs = options.total_epoch_num
    random_epochs = epochs - round(options.paired_share * epochs)
    by_name = scene_dir / f"train_{flight}_sim" if random_epochs < epochs and options.stage != "I" else None
    other = scene_dir / "train_sim" if random_epochs > 0 and options.stage != "I" else None

    cache_bytes = int(options.cache_gb * 2**30) // _SECTIONS_AT_ONCE

    def opened(path: Path) -> SectionDataset:
        dataset = SectionDataset([path], "coord", options.image_height, cache_bytes=cache_bytes)
        check_geometry(dataset)
        return dataset

    training = {path: opened(path) for path in (real, by_name, other) if path is not None}
    pairs = Pairs(
        training[real],
        training.get(by_name),
        training[real] if options.stage == "I" else training.get(other),
        paired_from=epochs if options.stage == "I" else random_epochs,
        seed=options.seed,
    )
    validation = (opened(scene_dir / f"val_{flight}_{domain}") for domain in ("real", "sim"))
    return StageData(pairs, training, *validation)


def build_record(options: StageOptions, data: StageData, previous: RunRecord | None) -> RunRecord:
    """The record of a stage.

    Args:
        previous: that of the stage's folder; spares measuring the same sections again.
    Raises:
        ValueError, OSError: a stage before it is missing, was trained on other options, or its weights cannot be read.
    """
    kept = deciding(options)
    if options.stage == "I":
        kept["perceptual"] = available_source()
    project_dir = options.project_dir
    for stage, _ in _PARENTS[options.stage]:
        _check_common(kept, record_in_stage(project_dir, stage), stage)
    parents = [
        parent_record(f"{stage}/{net}", best_path(project_dir / stage, net)) for stage, net in _PARENTS[options.stage]
    ]
    if options.network_in is not None:
        parents.append(parent_record("--network_in", options.network_in))
    recorded = tuple(section_record(path, "init", len(dataset)) for path, dataset in data.sections.items())
    known = previous is not None and previous.sections == recorded
    statistics = previous.statistics if known else _statistics(options, data)
    return RunRecord(
        name=f"{options.project_dir.name}/{options.stage}",
        scene=options.scene,
        task=_TASK,
        stage=options.stage,
        kind="pairs",
        domain=options.real_data_domain,
        sim_chunk=None,
        real_chunk=1.0,
        architecture=None,
        options=kept,
        sections=recorded,
        images_per_epoch=len(data.pairs),
        preprocessing=_preprocessing(options, statistics),
        statistics=statistics,
        frame=frame_of(options.scene_dir),
        geodata=geodata_of(options.scene_dir),
        cameras=previous.cameras if known else cameras_of(data.pairs.real),
        parents=tuple(parents),
        software=software_versions(),
    )


def _statistics(options: StageOptions, data: StageData) -> SceneStatistics:
    """Of the regressor that the stage goes on with, else of the scene: synthetic images and photos."""
    if options.stage in ("I", "joint", "finetune"):
        return record_in_stage(options.project_dir, "C").statistics
    return statistics_of(options.scene, list(data.training))


def _preprocessing(options: StageOptions, statistics: SceneStatistics) -> Preprocessing:
    """What C's images are normalised by; of --network_in, as that was trained."""
    if options.network_in is not None:
        record = record_of(options.network_in)
        if record is not None:
            return Preprocessing(options.image_height, False, record.preprocessing.rgb_mean, record.preprocessing.rgb_std)
    if options.stage in ("I", "joint", "finetune"):
        of_C = record_in_stage(options.project_dir, "C").preprocessing
        return Preprocessing(options.image_height, False, of_C.rgb_mean, of_C.rgb_std)
    if options.stage in ("T", "A"):
        return unnormalised(options.image_height)
    return Preprocessing(options.image_height, False, **colours(options.img_normalize, statistics))


def _check_common(now: dict, before: RunRecord, stage: str) -> None:
    for name in _COMMON + (() if stage in ("T", "A") else _COMMON_OF_REGRESSOR):
        if before.options.get(name) != now[name]:
            raise ValueError(
                f"stage {stage} was trained with --{name} {before.options.get(name)}, this one asks for {now[name]}: "
                "all stages of a project share it; give another one its own --project_name"
            )
