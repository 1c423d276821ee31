"""What a section was made from: settings, contents of the inputs, frame, versions; kept in its own folder as section.json.

The record is staged and swapped with the images that it describes, so it cannot be of others. Inputs are known by content:
a corrected surface model under the old name is another one, a moved file is the same.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from datagen import sections, staging
from datagen.cameras import Camera, read_json
from datagen.scene import GeoScene
from records import fingerprint
from records.files import plain

log = logging.getLogger(__name__)

RECORD_VERSION = 1
# Options that change nothing in a section: how it is made, where it goes, and what is recorded as an input instead.
_WITHOUT_EFFECT = {
    "run", "command", "workers", "scheduler", "shard", "overwrite", "resume", "output_dir", "scene", "split", "origin",
}  # fmt: skip
_RASTERS = ("surface", "ortho", "landcover")
_CAMERAS = ("cameras", "colmap", "nerfstudio", "odm", "geo_txt", "around", "poses", "flight")
_OTHER = {
    "surface": "another surface model",
    "ortho": "another orthophoto",
    "landcover": "another land cover",
    "preset": "another preset",
    "photos": "other photos",
    **dict.fromkeys(_CAMERAS, "other cameras"),
}
_PACKAGES = ("numpy", "opencv-python-headless", "pillow", "rasterio", "embreex", "pycolmap")
# Beside a raster, but without effect on its cells: statistics, and overviews that nothing here reads.
_SIDE_FILES = (".aux.xml", ".ovr")
# Digests of less data are not worth a file that keeps them.
_CACHED_BYTES = 64 << 20


@dataclass
class Inputs:
    """Fingerprints of a command's inputs by option, and the files that they were computed from.

    Args:
        cache_dir: folder that may keep the digests of large files.
    """

    cache_dir: Path | None = None
    found: dict[str, dict] = field(default_factory=dict)
    _states: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def add_value(self, name: str, files: Iterable[Path], value: Any, **more) -> None:
        """An input whose content was read already; `more` is recorded for the reader."""
        self._add(name, files, fingerprint.of_value(value), **more)

    def add_files(self, name: str, paths: Mapping[str, Path]) -> None:
        """Files by what they are called here."""
        digests = self._digests(paths.values())
        content = {called: digests[path] for called, path in paths.items()}
        self._add(name, paths.values(), fingerprint.of_value(content))

    def add_raster(self, name: str, paths: list[Path]) -> None:
        """Rasters by their bytes and by what says how to read them, wherever that is written; of a VRT its sources too."""
        headers, files = [], []
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"{name} {path}: no such file")
            header, parts = _raster_header(path)
            headers.append(header)
            files += parts
        contents = sorted(self._digests(files).values())
        # Of the bytes alone, too: texts of a header differ between versions of GDAL and PROJ.
        self._add(name, paths, fingerprint.of_value([headers, contents]), contents=fingerprint.of_value(contents))

    def check_unchanged(self) -> None:
        """Raises ValueError when a file was written since its fingerprint was computed."""
        for path, state in self._states.items():
            if not path.exists() or _state(path) != state:
                raise ValueError(f"{path} changed while it was in use; run the command again")

    def _add(self, name: str, files: Iterable[Path], digest: str, **more) -> None:
        self.found[name] = {"files": sorted(path.name for path in files), "fingerprint": digest, **more}

    def _digests(self, paths: Iterable[Path]) -> dict[Path, str]:
        named = {str(path.resolve()): path for path in paths}
        self._states |= {path: _state(path) for path in named.values()}
        large = sum(path.stat().st_size for path in named.values()) >= _CACHED_BYTES
        cache_dir = self.cache_dir if large and self.cache_dir is not None and self.cache_dir.is_dir() else None
        digests = fingerprint.digests(named, cache_dir=cache_dir)
        return {path: digests[name] for name, path in named.items()}


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _raster_header(path: Path) -> tuple[Any, list[Path]]:
    """What decides how a raster's cells are read, and the files that hold them; a damaged one is left to its reader."""
    try:
        with rasterio.open(path) as raster:
            header = [
                raster.crs.to_wkt() if raster.crs else None, list(raster.transform), raster.shape, raster.dtypes,
                [repr(value) for value in raster.nodatavals], raster.scales, raster.offsets, raster.units,
                [str(interpretation) for interpretation in raster.colorinterp],
            ]  # fmt: skip
            files = [Path(file) for file in raster.files if not file.endswith(_SIDE_FILES)]
            return header, [file for file in files if file.is_file()] or [path]
    except RasterioError:
        return None, [path]


def inputs_of(args: argparse.Namespace, scene_dir: Path, cameras: list[Camera], photos: Mapping[str, Path]) -> Inputs:
    """Fingerprints of everything that a command reads: each option that is a path.

    Args:
        cameras: those that are used, from whichever option gives cameras; they count, not the file.
        photos: stem to photo of the cameras; empty where none is read.
    """
    inputs = Inputs(cache_dir=scene_dir)
    for name, value in vars(args).items():
        paths = value if isinstance(value, (list, tuple)) else [value]
        if name in _WITHOUT_EFFECT or name == "photos" or not paths or not all(isinstance(path, Path) for path in paths):
            continue
        if name in _RASTERS:
            inputs.add_raster(name, paths)
        elif name == "preset":
            content = read_json(value, "preset")
            inputs.add_value(name, paths, content, content=content)
        elif name in _CAMERAS:
            described = [_described(camera, whole=bool(photos)) for camera in cameras]
            inputs.add_value(name, paths, described, stems=[camera.stem for camera in cameras])
        else:
            inputs.add_files(name, {path.name: path for path in paths})
    if photos:
        inputs.add_files("photos", photos)
    return inputs


def _described(camera: Camera, *, whole: bool) -> list:
    """What counts of a camera: its pose, and with its photo the rest of it too."""
    described = [camera.stem, camera.world_from_cam_44.tolist()]
    return [*described, camera.K_33.tolist(), camera.width, camera.height, camera.lens, camera.file] if whole else described


def settings_of(args: argparse.Namespace) -> dict:
    """All options of a command that are no paths and have an effect, whatever options there are."""
    return {"command": args.command} | {
        name: plain(value)
        for name, value in sorted(vars(args).items())
        if name not in _WITHOUT_EFFECT
        and not any(isinstance(v, Path) for v in (value if isinstance(value, list) else [value]))
    }


def section_record(
    settings: Mapping[str, Any],
    inputs: Mapping[str, dict],
    frame: Mapping[str, Any],
    *,
    assumptions: Mapping[str, Any] | None = None,
    **counts: int,
) -> dict:
    """The record of a new section.

    Args:
        frame: see `sections.frame_of`. assumptions: what was assumed about the geodata, see `assumed`.
        counts: `images` and what else was counted.
    """
    return {
        "version": RECORD_VERSION,
        "settings": plain(settings),
        "inputs": plain(inputs),
        "frame": dict(frame),
        "assumptions": plain(assumptions),
        **counts,
        "versions": _versions(),
    }


def assumed(scene: GeoScene) -> dict | None:
    """What was assumed about a scene's geodata; None for a scene that was not read from files."""
    return None if scene.assumptions is None else scene.assumptions.record()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # another build of it, such as conda's
    return found


def differences(section_dir: Path, settings: Mapping[str, Any], inputs: Mapping[str, dict]) -> list[str]:
    """How a section on disk differs from what a command would make, in words that follow "was made"; empty if not."""
    record = sections.read_section_record(section_dir)
    if record is None:
        return [
            f"by an older version, or by hand: it holds no {sections.SECTION_RECORD}, so nothing says what it was made from"
        ]
    if record.get("version") != RECORD_VERSION:
        return [f"by another version (its record has the version {record.get('version')}, not {RECORD_VERSION})"]
    found = []
    before, now = record.get("inputs", {}), plain(inputs)
    for name in sorted(set(before) | set(now)):
        old, new = before.get(name), now.get(name)
        if (old or {}).get("fingerprint") != (new or {}).get("fingerprint"):
            found.append(_other_input(name, old, new))
    settled, wanted = record.get("settings", {}), plain(settings)
    changed = sorted(name for name in set(settled) | set(wanted) if settled.get(name) != wanted.get(name))
    if changed:
        found.append(f"with other settings ({', '.join(changed)})")
    images = sum(1 for path in (section_dir / "rgb").glob("*.png") if not path.name.startswith("."))
    if images != record.get("images"):
        found.append(f"with {record.get('images')} images, of which {images} are left")
    return found


def _other_input(name: str, old: dict | None, new: dict | None) -> str:
    if old is None:
        return f"without --{name}"
    if new is None:
        return f"with --{name}"
    files = ", ".join(new["files"][:3]) + (" ..." if len(new["files"]) > 3 else "")
    return f"from {_OTHER.get(name, f'another --{name}')} ({files})"


def sections_to_make(
    args: argparse.Namespace, scene_dir: Path, settings: Mapping[str, Mapping], inputs: Mapping[str, dict]
) -> bool:
    """Whether the sections (name to settings) have to be made; first ends what an interrupted run left.

    Raises:
        FileExistsError: some exist and neither --overwrite nor --resume was given.
        ValueError: --resume, but one was made with other settings or from other inputs.
    """
    staging.finish_interrupted(scene_dir)
    existing = [name for name in settings if (scene_dir / name).exists()]
    if not existing or args.overwrite:
        return True
    if not args.resume:
        raise FileExistsError(
            f"already there: {', '.join(str(scene_dir / name) for name in existing)} (--overwrite replaces them, "
            "--resume keeps what was made from the same inputs with the same settings)"
        )
    for name in existing:
        found = differences(scene_dir / name, settings[name], inputs)
        found += _other_origin(args, scene_dir / name) if not found else []
        if found:
            raise ValueError(f"--resume: {scene_dir / name} was made {' and '.join(found)}; use --overwrite")
    if len(existing) == len(settings):
        log.info("already there, from the same inputs with the same settings: %s", ", ".join(existing))
        return False
    return True


def _other_origin(args: argparse.Namespace, section_dir: Path) -> list[str]:
    # Without --origin the scene's own is meant, whatever gave it.
    origin_xyz = sections.read_section_record(section_dir)["frame"]["origin_xyz"]
    if args.origin is None or np.allclose(origin_xyz, args.origin, atol=1e-6):
        return []
    return [f"with the origin {origin_xyz}"]
