"""Photos that are held out for validation and test: no view for training is drawn around them or at their poses."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from datagen import splits
from datagen.cameras import Camera, read_pose_file

log = logging.getLogger(__name__)

# Stored poses have 12 digits; no two photos of a flight are as close as this in position (m) and rotation.
_SAME_POSITION, _SAME_ROTATION = 1e-3, 1e-5


def is_for_training(section: str | None) -> bool:
    """Whether a section's views may be trained on: the default pair train_sim and val_sim, or one named train..."""
    return section is None or section.startswith("train")


def training_cameras(
    flight: list[Camera], split: list[str] | None, scene_dir: Path, scene: str, section: str | None
) -> list[Camera]:
    """Cameras of a flight to draw views around: those of the training part of the given or the recorded split.

    Args:
        split: words of --split. scene_dir: the scene's folder, where photos and their split record are.
        section: the one to make, None for train_sim and val_sim.
    Raises:
        ValueError: the split holds all photos out, contradicts the record, or there are test photos but no record.
    """
    record = splits.flight_split_record(scene_dir, scene)
    stems = [camera.stem for camera in flight]
    recorded = splits.read_split_record(record) if record.is_file() else {}
    known = {stem for part in recorded.values() for stem in part}
    held_out = known - set(recorded.get("train", ()))
    if split:
        parts = splits.read_split(split, stems, {camera.stem: camera.file for camera in flight})
        training = set(parts.get("train", ()))
        _refuse_contradiction(training & held_out, record)
    elif known & set(stems):
        training = _recorded_training(set(stems), known, held_out, record)
    else:
        _say_without_split(record, len(stems), _held_out_sections(scene_dir))
        return flight
    if not training and not is_for_training(section):
        log.warning("section %s is drawn around held-out photos, for there is no training photo: never train on it", section)
        return flight
    if not training:
        raise ValueError(f"{record if not split else '--split'}: no training photo is left to draw views around")
    log.info("drawing views around %d training photos of %d", len(training), len(stems))
    return [camera for camera in flight if camera.stem in training]


def _refuse_contradiction(both: set[str], record: Path) -> None:
    if both:
        raise ValueError(
            f"--split calls {_some(both)} training photos, but the split record {record} holds them out; training "
            "views around them would show the test"
        )


def _recorded_training(stems: set[str], known: set[str], held_out: set[str], record: Path) -> set[str]:
    if stems - known:
        raise ValueError(f"split record {record} says nothing about {_some(stems - known)}; give --split")
    return stems - held_out


def _say_without_split(record: Path, count: int, present: list[Path]) -> None:
    if record.is_file():
        log.warning(
            "the split record %s names none of these %d photos: taken as another flight, all of them used",
            record,
            count,
        )
        return
    if present:
        raise ValueError(
            f"{present[0]} holds photos out, but there is no split record {record}: say by --split which photos are "
            "for training"
        )
    log.warning(
        "no --split and no split record %s: views are drawn around all %d photos, so none of them may be tested on "
        "(make the photo sections first)",
        record, count,
    )  # fmt: skip


def refuse_held_out_poses(cameras: list[Camera], scene_dir: Path) -> None:
    """Raises ValueError when a camera (world frame) has the pose of a photo that is held out, whatever it is called."""
    poses = {
        path: read_pose_file(path)
        for section_dir in _held_out_sections(scene_dir)
        for path in sorted((section_dir / "poses").glob("*.txt"))
        if not path.name.startswith(".")
    }
    if not poses:
        return
    held_out_N44, paths = np.stack(list(poses.values())), list(poses)
    for camera in cameras:
        moved_N = np.linalg.norm(held_out_N44[:, :3, 3] - camera.world_from_cam_44[:3, 3], axis=1)
        turned_N = np.abs(held_out_N44[:, :3, :3] - camera.world_from_cam_44[:3, :3]).max(axis=(1, 2))
        same = np.flatnonzero((moved_N < _SAME_POSITION) & (turned_N < _SAME_ROTATION))
        if len(same):
            raise ValueError(
                f"camera {camera.stem} has the pose of the held-out photo {paths[same[0]]}; views for training must not"
            )


def _held_out_sections(scene_dir: Path) -> list[Path]:
    return sorted(
        path for part in ("val", "test") for path in scene_dir.glob(f"{part}*_drone_*") if (path / "poses").is_dir()
    )


def _some(stems: set[str]) -> str:
    return ", ".join(sorted(stems)[:5]) + (" ..." if len(stems) > 5 else "")
