"""Do labels, poses and calibrations belong together? A look at a few samples, before hours are spent on them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

from dataloader.check.surfaces import UNCERTAIN, check_depth, check_normals
from dataloader.geometry_mistakes import explain
from dataloader.images import decode_image
from dataloader.labels import label_camera, read_calibration, read_label, read_pose
from dataloader.section import SampleFiles, SectionDataset
from dataloader.sighting import Sighting, sighting_of
from geometry.poses import invert_pose, transform_points
from tasks import TASKS

logger = logging.getLogger(__name__)


def check_geometry(dataset: SectionDataset, count: int = 8) -> float | None:
    """Projects the scene coordinates of a few samples with their poses and calibrations.

    Depths and normals, where the task is one of them, are held against the coordinates too. `python -m dataloader.check`
    does this and more to every sample.

    Args:
        count: images to look at, spread over all sections.
    Returns:
        the largest median distance from the cells' centres, pixels; None where there is no scene coordinate to look at.
    Raises:
        ValueError: an image's labels do not project onto their cells; names the image, the distance and the explanation
            that fits, if a usual one does.
    """
    chosen = _spread(dataset.section_of, count)
    sightings = [sighting for sighting in (_sighting(dataset, index) for index in chosen) if sighting is not None]
    if not sightings:
        logger.info("poses and calibrations were not checked: there are no scene coordinates (init/) to check them with")
        return None
    wrong = [sighting for sighting in sightings if not sighting.is_right]
    if wrong:
        first = wrong[0]
        raise ValueError(
            f"the labels of {first.stem} do not project onto their cells with its pose and calibration: they lie "
            f"{first.where} ({len(wrong)} of {len(sightings)} images looked at disagree). {explain(wrong).text}"
        )
    for index in chosen:
        for text in _contradictions(dataset, index):
            raise ValueError(f"the labels of {dataset.stems[index]}: {text}")
    return max(sighting.as_stated_px for sighting in sightings)


def _contradictions(dataset: SectionDataset, index: int) -> Iterator[str]:
    """What is wrong with depths or normals beside the scene coordinates of the same cells."""
    checks = {"depth": check_depth, "normal": check_normals}
    files = dataset.files[index]
    coords_path = _coords_path(files)
    if dataset.task.label_folder not in checks or not coords_path.is_file():
        return
    coords_3hw, valid_1hw = read_label(coords_path, TASKS["coord"])
    label_Chw, label_valid_1hw = read_label(files.label, dataset.task)
    if valid_1hw.shape != label_valid_1hw.shape or not (valid_1hw & label_valid_1hw).any():
        return
    cam_from_world_44 = invert_pose(read_pose(files.pose))
    p_cam_3hw = transform_points(cam_from_world_44[None], coords_3hw.double().flatten(1)[None])[0].view(coords_3hw.shape)
    check = checks[dataset.task.label_folder]
    valid_hw = (valid_1hw & label_valid_1hw)[0]
    for kind, text in check(p_cam_3hw, label_Chw.double(), valid_hw, cam_from_world_44[:3, :3]):
        if kind != UNCERTAIN:
            yield text


def _coords_path(files: SampleFiles) -> Path:
    task = TASKS["coord"]
    return files.image.parent.parent / task.label_folder / f"{files.image.stem}{task.label_suffix}"


def _spread(section_of: list[str], count: int) -> list[int]:
    """Indices of samples, evenly over each section, at least one of each."""
    chosen: list[int] = []
    sections = [list(group) for _, group in itertools.groupby(range(len(section_of)), key=section_of.__getitem__)]
    for indices in sections:
        n = min(len(indices), max(1, count // len(sections)))
        chosen += [indices[i * len(indices) // n] for i in range(n)]
    return chosen


def _sighting(dataset: SectionDataset, index: int) -> Sighting | None:
    files, task = dataset.files[index], TASKS["coord"]
    label_path = _coords_path(files)
    if not label_path.is_file():
        return None
    coords_3hw, valid_1hw = read_label(label_path, task)
    H, W = decode_image(files.image).shape[:2]
    K_33, pose_44 = read_calibration(files.calibration, H, W), read_pose(files.pose)
    camera = label_camera(label_path, coords_3hw, H, W, task, K_33)
    return sighting_of(dataset.stems[index], coords_3hw, valid_1hw[0], pose_44, camera)
