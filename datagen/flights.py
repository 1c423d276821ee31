"""Flights: photos or views with poses, in whatever frame their source states them, brought into a scene's world frame."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyproj
from rasterio.crs import CRS

from datagen import frames
from datagen.cameras import Camera, unique_stems
from datagen.photo_metadata import read_metadata
from dataloader.section import IMAGE_SUFFIXES
from geometry.attitude import enu_from_camera

log = logging.getLogger(__name__)

ECEF = CRS.from_epsg(4978)
# A step to measure a direction by: small against the curvature of any map, large against rounding.
_STEP_M, _METRES_PER_DEGREE = 10.0, 111_000.0


@dataclass(frozen=True)
class Flight:
    """Cameras in a CRS.

    Attributes:
        cameras: centres as x, y, z in the CRS (longitude, latitude, height where it is geographic); rotations to the CRS's
            east, north, up at the centre (true north where it is geographic).
        crs: None: the scene's own.
    """

    cameras: list[Camera]
    crs: CRS | None = None

    def in_crs(self, crs: CRS) -> list[Camera]:
        """The cameras in another horizontal CRS: centres converted, rotations turned by the grid's convergence there.

        Heights are kept as they are, as everywhere (the vertical datum is said, never changed).

        Raises:
            ValueError: one of both CRS is local and the other is not.
        """
        if self.crs is None or self.crs == crs or not self.cameras:
            return self.cameras
        if frames.is_local(self.crs) != frames.is_local(crs):
            raise ValueError(
                f"the poses are in {frames.label(self.crs)}, the geodata in {frames.label(crs)}: a local CRS cannot be "
                "converted to another"
            )
        if frames.is_local(crs):
            return self.cameras
        centres_N3 = np.stack([camera.world_from_cam_44[:3, 3] for camera in self.cameras])
        xy_N2, north_N2 = converted_with_north(centres_N3[:, :2], self.crs, crs)
        moved = []
        for camera, xy_2, (east, north) in zip(self.cameras, xy_N2, north_N2, strict=True):
            pose_44 = camera.world_from_cam_44.copy()
            pose_44[:2, 3] = xy_2
            pose_44[:3, :3] = np.array([[north, east, 0], [-east, north, 0], [0, 0, 1]]) @ pose_44[:3, :3]
            moved.append(replace(camera, world_from_cam_44=pose_44))
        return moved


def converted_with_north(xy_N2: np.ndarray, from_crs: CRS, to_crs: CRS) -> tuple[np.ndarray, np.ndarray]:
    """Positions [N, 2] in another CRS, and the unit direction (east, north) there of the first one's north.

    Raises:
        ValueError: a position has no place in the other CRS.
    """
    transformer = pyproj.Transformer.from_crs(frames.full(from_crs), frames.full(to_crs), always_xy=True)
    unit_m = frames.metres_per_unit(from_crs)
    step = _STEP_M / (_METRES_PER_DEGREE if unit_m is None else unit_m)
    here_N2 = np.stack(transformer.transform(*xy_N2.T), -1)
    ahead_N2 = np.stack(transformer.transform(xy_N2[:, 0], xy_N2[:, 1] + step), -1)
    if not np.isfinite([here_N2, ahead_N2]).all():
        bad = int(np.flatnonzero(~np.isfinite(here_N2 + ahead_N2).all(axis=1))[0])
        raise ValueError(
            f"position {xy_N2[bad].tolist()} in {frames.label(from_crs)} has no place in {frames.label(to_crs)}; "
            "are longitude and latitude exchanged?"
        )
    north_N2 = ahead_N2 - here_N2
    return here_N2, north_N2 / np.linalg.norm(north_N2, axis=1, keepdims=True)


def lonlat_of_ecef(xyz_N3: np.ndarray) -> np.ndarray:
    """Longitude, latitude (degrees), ellipsoidal height (m) [N, 3] of earth-centred WGS 84 coordinates, in float64."""
    transformer = pyproj.Transformer.from_crs(frames.full(ECEF), "EPSG:4979", always_xy=True)
    return np.stack(transformer.transform(*np.asarray(xyz_N3, np.float64).T), -1)


def pose_of(position_3: Sequence[float], yaw_pitch_roll_deg: Sequence[float]) -> np.ndarray:
    """Camera-to-world [4, 4] from a centre and an attitude (see `geometry.attitude`)."""
    pose_44 = np.eye(4)
    pose_44[:3, :3], pose_44[:3, 3] = enu_from_camera(*yaw_pitch_roll_deg), position_3
    return pose_44


def raised(flight: Flight, offset_m: float) -> Flight:
    """The flight with an offset added to its heights."""
    lift_44 = np.zeros((4, 4))
    lift_44[2, 3] = offset_m
    return replace(flight, cameras=[replace(c, world_from_cam_44=c.world_from_cam_44 + lift_44) for c in flight.cameras])


def flown_again(folder: Path) -> Flight:
    """Where and how the photos of a folder say that they were taken; photos that do not say are left out.

    Raises:
        NotADirectoryError, ValueError: no such folder; no photo says it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"flight {folder}: no such folder")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
    said = {path: read_metadata(path) for path in paths if not path.name.startswith(".")}
    complete = {path: m for path, m in said.items() if m.lon_lat_height and m.yaw_pitch_roll_deg}
    if not complete:
        raise ValueError(f"flight {folder}: none of {len(said)} photos holds a position (EXIF) and an attitude (XMP)")
    if len(complete) < len(said):
        missing = sorted(path.name for path in said.keys() - complete.keys())
        log.warning(
            "%d of %d photos hold no position or attitude and are left out, such as %s", len(missing), len(said), missing[0]
        )
    files = [str(path.relative_to(folder)) for path in complete]
    cameras = [
        Camera(stem, pose_of(m.lon_lat_height, m.yaw_pitch_roll_deg), np.eye(3), m.width, m.height, None, file)
        for stem, file, m in zip(unique_stems(files), files, complete.values(), strict=True)
    ]
    log.info("heights of the photos are taken as they stand; --height_offset moves them")
    return Flight(sorted(cameras, key=lambda camera: camera.stem), frames.WGS84)
