"""Which surface model and orthophoto a scene was made from: in scene.json, and from there in the records of runs.

So an answer finds the map that its network was taught from. Paths are relative to the scene's folder where both can move
together, and contents are known by fingerprint: another file under the old name is not the map.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen.provenance import Inputs

LAYERS = ("surface", "ortho")


@dataclass(frozen=True)
class SceneGeodata:
    """Files of a scene's map. height_unit: of the surface model's heights, where the data set's maker had to say it."""

    surface: tuple[Path, ...]
    ortho: tuple[Path, ...]
    height_unit: str | None = None


def geodata_record(
    scene_dir: Path,
    surface: Path | Sequence[Path],
    ortho: Path | Sequence[Path],
    inputs: Inputs,
    height_unit: str | None = None,
) -> dict[str, Any]:
    """The entry of scene.json.

    Args:
        inputs: that hold both layers' contents, or are given them.
    """
    record: dict[str, Any] = {"height_unit": height_unit}
    for layer, paths in zip(LAYERS, (surface, ortho), strict=True):
        paths = [paths] if isinstance(paths, Path) else list(paths)
        if layer not in inputs.found:
            inputs.add_raster(layer, paths)
        files = [_path_from(scene_dir, path) for path in paths]
        record[layer] = {"files": files, "fingerprint": inputs.found[layer]["contents"]}
    return record


def _path_from(scene_dir: Path, path: Path) -> str:
    path, scene_dir = path.resolve(), scene_dir.resolve()
    # What shares nothing but the root with the data set does not move with it.
    together = os.path.commonpath((path, scene_dir)) != os.path.commonpath((path, path.anchor))
    return Path(os.path.relpath(path, scene_dir)).as_posix() if together else str(path)


def _path_at(scene_dir: Path, name: str) -> Path:
    return Path(os.path.normpath(scene_dir.resolve() / name))


def find_geodata(record: Mapping[str, Any], scene_dirs: Sequence[Path]) -> SceneGeodata:
    """The files of a record, unchanged.

    Args:
        record: see `geodata_record`. scene_dirs: where the scene's folder may lie, likeliest first.
    Raises:
        FileNotFoundError: a file is not there. ValueError: it has changed, or the record is damaged.
    """
    try:
        wanted = {layer: ([str(file) for file in record[layer]["files"]], record[layer]["fingerprint"]) for layer in LAYERS}
        height_unit = record["height_unit"]
    except (KeyError, TypeError):
        raise ValueError("what the record says of the geodata is damaged") from None
    names = [name for files, _ in wanted.values() for name in files]
    complete = (folder for folder in scene_dirs if all(_path_at(folder, name).is_file() for name in names))
    scene_dir = next(complete, None)
    if scene_dir is None:
        likeliest = (_path_at(scene_dirs[0], name) for name in names)
        raise FileNotFoundError(f"{next(path for path in likeliest if not path.is_file())} is missing")
    found = {}
    for layer, (files, content) in wanted.items():
        paths = [_path_at(scene_dir, name) for name in files]
        inputs = Inputs(cache_dir=scene_dir)
        inputs.add_raster(layer, paths)
        if inputs.found[layer]["contents"] != content:
            raise ValueError(f"{paths[0]}{f' or one of {len(paths) - 1} more' if len(paths) > 1 else ''} has changed")
        found[layer] = tuple(paths)
    return SceneGeodata(found["surface"], found["ortho"], height_unit)
