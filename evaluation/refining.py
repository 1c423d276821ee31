"""Estimated poses refined by the map, beside the coarse ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from datagen.scene_geodata import find_geodata
from dataloader.images import decode_image
from dataloader.labels import read_calibration
from dataloader.section import SectionDataset
from evaluation.coord import CoordResult
from evaluation.refined import RefinedPose
from geometry.poses import pose_error
from localization.geodata import Geodata
from localization.matchers import Matcher
from localization.refinement import refine
from records.files import read_json


def open_map(surface: Sequence[Path], ortho: Sequence[Path], scene_dir: Path) -> Geodata:
    """Geodata in a scene's frame; without any named, those that the scene was made from.

    Raises:
        FileNotFoundError, ValueError: no geodata, changed ones, of another CRS, or a scene without a frame.
    """
    record, height_unit = read_json(scene_dir / "scene.json", "scene record"), None
    if not surface:
        if record.get("geodata") is None:
            raise ValueError(f"{scene_dir / 'scene.json'} names no geodata to refine by: give --surface and --ortho")
        found = find_geodata(record["geodata"], [scene_dir])
        surface, ortho, height_unit = found.surface, found.ortho, found.height_unit
    return Geodata.open(surface, ortho, record, height_unit)


def refined_results(
    results: Iterable[CoordResult],
    dataset: SectionDataset,
    geodata: Geodata,
    height: int,
    matcher: Matcher | None = None,
) -> Iterator[CoordResult]:
    """Refines every result in the photo as stored; a pose that does not exist stays so."""
    files_of = dict(zip(dataset.stems, dataset.files, strict=True))
    for result in results:
        files = files_of[result.stem]
        photo_HW3 = decode_image(files.image)
        K_33 = read_calibration(files.calibration, *photo_HW3.shape[:2]).numpy()
        pose = result.pose
        refinement = refine(
            photo_HW3,
            K_33,
            pose.world_from_cam_44,
            geodata,
            height=height,
            covariance_66=pose.covariance_66,
            matcher=matcher,
        )
        errors = result.translation_m, result.rotation_deg
        if refinement.accepted:
            true_44 = torch.from_numpy(result.pose_true_44)
            errors = pose_error(torch.from_numpy(refinement.world_from_cam_44), true_44)
        yield replace(result, refined=RefinedPose(refinement, *errors))
