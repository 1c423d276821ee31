"""Lists of camera positions and attitudes: geo.txt, CSV with a header, and earth-centred `.npy` with picture names.

Angles are those of `geometry.attitude`: yaw clockwise from north, pitch -90 straight down, roll about the viewing axis.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from datagen import frames
from datagen.cameras import Camera, unique_stems
from datagen.flights import Flight, lonlat_of_ecef, pose_of

# Column names that people use, by what they mean.
_COLUMNS = {
    "name": ("name", "file", "filename", "image", "image_name", "label", "photo"),
    "lon": ("lon", "longitude", "long"),
    "lat": ("lat", "latitude"),
    "x": ("x", "easting", "east"),
    "y": ("y", "northing", "north"),
    "height": ("height", "h", "z", "alt", "altitude", "elevation"),
    "yaw": ("yaw", "heading"),
    "pitch": ("pitch",),
    "roll": ("roll",),
}
_ANGLES = ("yaw", "pitch", "roll")
_ECEF_COLUMNS = 6
# Earth-centred positions are at the Earth's radius, metres.
_EARTH_RADII_M = 6.2e6, 6.6e6


@dataclass(frozen=True)
class PoseList:
    """names: of the photos or views. position_N3: x, y, z (or longitude, latitude, height) in crs (None: the scene's).

    angles_N3: yaw, pitch, roll in degrees; None when the list has positions only.
    """

    source: Path
    names: list[str]
    position_N3: np.ndarray
    angles_N3: np.ndarray | None
    crs: CRS | None

    def flight(self, cameras: list[Camera] | None = None) -> Flight:
        """Views at the listed poses; with `cameras` theirs in the same order (their poses are replaced).

        Raises:
            ValueError: the list has no angles.
        """
        if self.angles_N3 is None:
            raise ValueError(f"pose list {self.source}: positions only; views need yaw, pitch and roll too")
        if cameras is None:
            cameras = [Camera(stem, np.eye(4), np.eye(3), 0, 0) for stem in unique_stems(self.names)]
        posed = [
            Camera(c.stem, pose_of(position, angles), c.K_33, c.width, c.height, c.lens, c.file)
            for c, position, angles in zip(cameras, self.position_N3, self.angles_N3, strict=True)
        ]
        return Flight(sorted(posed, key=lambda camera: camera.stem), self.crs)


def read_pose_list(path: Path) -> PoseList:
    """Reads a list by its form: `.npy`, a header of column names, or geo.txt's first line with a CRS.

    Raises:
        FileNotFoundError, ValueError: no such file; what is wrong, with its line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"pose list {path}: no such file")
    if path.suffix.lower() == ".npy":
        return _read_ecef(path)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"pose list {path}: not a text file") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if len(numbered) < 2:
        raise ValueError(f"pose list {path}: a header and at least one line are needed")
    header = _fields(numbered[0][1])
    if {_meaning(word) for word in header} & {"lon", "lat", "x", "y"}:
        return _read_table(path, header, numbered[1:])
    return _read_geo(path, numbered)


def _fields(line: str) -> list[str]:
    if "," in line or ";" in line or "\t" in line:
        separator = next(mark for mark in ("\t", ";", ",") if mark in line)
        return [field.strip() for field in next(csv.reader([line], delimiter=separator))]
    return line.split()


def _meaning(word: str) -> str | None:
    word = word.lower().split("(")[0].split("[")[0].strip().removesuffix("_deg").removesuffix("_m")
    return next((meaning for meaning, words in _COLUMNS.items() if word in words), None)


def _numbers(words: list[str], where: str) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"{where}: expected numbers, found {' '.join(words)!r}") from None
    if not np.isfinite(values).all():
        raise ValueError(f"{where}: {' '.join(words)!r} is not finite")
    return values


def _read_table(path: Path, header: list[str], numbered: list[tuple[int, str]]) -> PoseList:
    column = {}
    for index, word in enumerate(header):
        meaning = _meaning(word)
        if meaning in column:
            raise ValueError(f"pose list {path}: two columns for {meaning}")
        column[meaning] = index
    plane = ("lon", "lat") if "lon" in column or "lat" in column else ("x", "y")
    missing = [name for name in (*plane, "height") if name not in column]
    angles = [name for name in _ANGLES if name in column]
    if missing or len(angles) not in (0, 3):
        wanted = missing or [name for name in _ANGLES if name not in column]
        raise ValueError(f"pose list {path}: no column for {', '.join(wanted)} in {', '.join(header)}")
    names, rows = [], []
    for number, line in numbered:
        words, where = _fields(line), f"pose list {path}, line {number}"
        if len(words) < len(header):
            raise ValueError(f"{where}: {len(words)} fields under {len(header)} columns")
        names.append(words[column["name"]] if "name" in column else f"{path.stem}_{len(names):05d}")
        rows.append(_numbers([words[column[name]] for name in (*plane, "height", *angles)], where))
    values = np.array(rows)
    crs = frames.WGS84 if plane == ("lon", "lat") else None
    return _checked(PoseList(path, names, values[:, :3], values[:, 3:] if angles else None, crs))


def _read_geo(path: Path, numbered: list[tuple[int, str]]) -> PoseList:
    """geo.txt: a CRS, then name x y z [yaw pitch roll [accuracies ...]]; angles that are all 0 were not available."""
    crs = _stated_crs(numbered[0][1], path)
    names, positions, angles = [], [], []
    for number, line in numbered[1:]:
        words, where = _fields(line), f"pose list {path}, line {number}"
        if len(words) < 4:
            raise ValueError(f"{where}: expected a name and x y z, found {line!r}")
        names.append(words[0])
        positions.append(_numbers(words[1:4], where))
        angles.append(_numbers(words[4:7], where) if len(words) >= 7 else [0.0] * 3)
    angles_N3 = np.array(angles)
    return _checked(PoseList(path, names, np.array(positions), angles_N3 if angles_N3.any(axis=1).all() else None, crs))


def _stated_crs(text: str, path: Path) -> CRS:
    words = text.upper().split()
    if words[:2] == ["WGS84", "UTM"] and len(words) == 3 and words[2][:-1].isdigit() and words[2][-1] in "NS":
        text = f"EPSG:{(32600 if words[2][-1] == 'N' else 32700) + int(words[2][:-1])}"
    try:
        return frames.declared(text)
    except ValueError as error:
        raise ValueError(f"pose list {path}: its first line is neither column names nor a CRS: {error}") from None


def _checked(listed: PoseList) -> PoseList:
    twice = sorted({name for name in listed.names if listed.names.count(name) > 1})
    if twice:
        raise ValueError(f"pose list {listed.source}: {twice[0]!r} is listed twice")
    if listed.crs == frames.WGS84 and (np.abs(listed.position_N3[:, :2]) > (180, 90)).any():
        bad = int(np.flatnonzero((np.abs(listed.position_N3[:, :2]) > (180, 90)).any(axis=1))[0])
        raise ValueError(
            f"pose list {listed.source}: {listed.names[bad]!r} at longitude, latitude "
            f"{listed.position_N3[bad, :2].tolist()} is nowhere on Earth; are the two exchanged?"
        )
    return listed


def _read_ecef(path: Path) -> PoseList:
    """`NAME_poses.npy` float64 [n, 6]: earth-centred x, y, z (m), yaw, pitch, roll (deg); names beside it, if any."""
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"pose list {path}: not a numpy array ({error})") from None
    if values.ndim != 2 or values.shape[1] != _ECEF_COLUMNS or not np.isfinite(values).all() or not len(values):
        raise ValueError(f"pose list {path}: expected finite numbers [n, {_ECEF_COLUMNS}], found {values.shape}")
    if values.dtype != np.float64:
        raise ValueError(f"pose list {path}: {values.dtype} cannot hold earth-centred positions (grain 0.5 m); float64 can")
    radius = np.linalg.norm(values[:, :3], axis=1)
    if not ((radius > _EARTH_RADII_M[0]) & (radius < _EARTH_RADII_M[1])).all():
        raise ValueError(f"pose list {path}: positions {radius.min():,.0f} m from the Earth's centre are not earth-centred")
    names_path = path.with_name(f"{path.stem.removesuffix('_poses')}_pic_names.csv")
    names = [f"{path.stem.removesuffix('_poses')}_{k:05d}" for k in range(len(values))]
    if names_path.is_file():
        names = [
            name.strip() for name in names_path.read_text(encoding="utf-8").replace("\n", ",").split(",") if name.strip()
        ]
        if len(names) != len(values):
            raise ValueError(f"{names_path}: {len(names)} names for {len(values)} poses")
    return _checked(PoseList(path, names, lonlat_of_ecef(values[:, :3]), values[:, 3:], frames.WGS84))
