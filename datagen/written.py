"""The check of what was written, at the end of every command."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from dataloader.geometry_check import check_geometry
from dataloader.preprocessing import DEFAULT_IMAGE_HEIGHT
from dataloader.section import SectionDataset

log = logging.getLogger(__name__)


def check_written(section_dirs: Sequence[Path]) -> None:
    """Projects the labels of a few images of new sections with their poses and calibrations.

    Raises:
        ValueError: they do not belong together; see `dataloader.geometry_check`.
    """
    worst_px = check_geometry(SectionDataset(list(section_dirs), "coord", DEFAULT_IMAGE_HEIGHT))
    if worst_px is not None:
        log.info("checked: the labels lie within %.2f px of where pose and calibration see them", worst_px)
