"""The map that weights were taught from, found again by their record."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from datagen.large_scene import is_large
from datagen.scene_geodata import SceneGeodata, find_geodata
from runs.record import RunRecord

logger = logging.getLogger(__name__)


def recorded_map(record: RunRecord | None, scene_dir: Path | None = None) -> SceneGeodata | None:
    """The geodata that a network's data set was rendered from; one line says which, or why there are none.

    Args:
        record: of the network's run. scene_dir: where the data set lies now, if elsewhere.
    Returns:
        None where the record, or the data set that it was made of, is older than such records (nothing is said then), and
        where the files are missing, have changed or are larger than memory.
    """
    if record is None or record.geodata is None:
        return None
    below = Path(os.environ.get("DATASETS_DIR") or "datasets") / record.scene
    recorded = record.geodata.get("scene_dir")
    folders = [Path(folder) for folder in (scene_dir, recorded, below) if folder is not None]
    try:
        found = find_geodata(record.geodata, folders)
        if is_large(found.surface, found.ortho, (record.frame or {}).get("crs")):
            raise ValueError(f"{found.surface[0]} or {found.ortho[0]} is larger than memory")
    except (ValueError, OSError) as error:
        logger.warning("the map recorded with the weights cannot be used: %s; poses are not refined", error)
        return None
    logger.info("map, as recorded with the weights: %s, %s", _shown(found.surface), _shown(found.ortho))
    return found


def _shown(paths: tuple[Path, ...]) -> str:
    return f"{paths[0]}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''}"
