"""From a scene's local frame to places on Earth: longitude, latitude, height, and attitude against true north."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
from pyproj.exceptions import CRSError

from datagen.scene import GeoScene
from datagen.sections import frame_of
from geometry.attitude import yaw_pitch_roll_from_enu_camera

WGS84 = pyproj.CRS.from_epsg(4326)
_NORTH_STEP_M = 100.0
UNKNOWN_DATUM = "as in the surface model, whose vertical datum is not declared"


@dataclass(frozen=True)
class GeoPose:
    """A camera on Earth.

    Attributes:
        longitude_deg, latitude_deg: WGS 84. height_m: above `Georeference.datum`.
        yaw_deg: heading clockwise from true north, [0, 360). pitch_deg: -90 looks straight down. roll_deg: right side down
            is positive. Straight down, yaw and roll turn about one axis: only their sum means something there.
    """

    longitude_deg: float
    latitude_deg: float
    height_m: float
    yaw_deg: float
    pitch_deg: float
    roll_deg: float


class Georeference:
    """Where a scene's local frame lies.

    Attributes:
        crs: of the local coordinates, horizontal, metres. origin_3: what was subtracted from its coordinates.
        datum: what heights are above, in words. ellipsoidal: whether that is the ellipsoid; None where nothing says.
    """

    def __init__(self, frame: Mapping[str, Any], *, datum: str = UNKNOWN_DATUM, ellipsoidal: bool | None = None):
        """
        Args:
            frame: as in scene.json and the record of a run: `crs` (WKT or a code) and `origin_xyz`.
        Raises:
            ValueError: the frame names no CRS, an unknown one, or a local one, which lies nowhere on Earth.
        """
        if not frame or not frame.get("crs") or frame.get("origin_xyz") is None:
            raise ValueError("the scene's frame names no CRS and origin: no longitude and latitude can be given")
        try:
            self.crs = pyproj.CRS.from_user_input(frame["crs"])
        except CRSError as error:
            raise ValueError(f"the scene's CRS is not understood: {error}") from None
        if self.crs.is_engineering or self.crs.geodetic_crs is None:
            raise ValueError("the scene is in a local frame, tied to no place on Earth: no longitude and latitude")
        self.origin_3 = np.asarray(frame["origin_xyz"], np.float64)
        self.datum, self.ellipsoidal = datum, ellipsoidal
        self._to_wgs84 = pyproj.Transformer.from_crs(self.crs.to_2d(), WGS84, always_xy=True)
        self._geod = WGS84.get_geod()

    @classmethod
    def of_surface(cls, surface: GeoScene) -> Georeference:
        """Of opened geodata, with what their files say of the vertical datum."""
        vertical = surface.assumptions.vertical if surface.assumptions is not None else None
        if vertical is None or not vertical.datum:
            return cls(frame_of(surface))
        return cls(frame_of(surface), datum=vertical.datum, ellipsoidal=vertical.ellipsoidal)

    def lonlat_height(self, points_N3: np.ndarray) -> np.ndarray:
        """Longitude, latitude (WGS 84, degrees) and height (m, unchanged datum) [N, 3] of local points [N, 3].

        Raises:
            ValueError: a point lies outside of what the CRS can express.
        """
        crs_N3 = np.asarray(points_N3, np.float64).reshape(-1, 3) + self.origin_3
        longitude_N, latitude_N = self._to_wgs84.transform(crs_N3[:, 0], crs_N3[:, 1])
        if not np.isfinite([longitude_N, latitude_N]).all():
            raise ValueError(f"a position is nowhere on Earth in {self.crs.name}")
        return np.stack((longitude_N, latitude_N, crs_N3[:, 2]), 1)

    def local(self, longitude_deg: float, latitude_deg: float, height_m: float) -> np.ndarray:
        """Local point [3] of a place; the inverse of `lonlat_height`."""
        x, y = self._to_wgs84.transform(longitude_deg, latitude_deg, direction="INVERSE")
        return np.array([x, y, height_m]) - self.origin_3

    def enu_from_world(self, position_3: np.ndarray) -> np.ndarray:
        """Rotation [3, 3] from the local axes (grid north) to east, north, up (true north) at a local point.

        The grid's north is off the meridian by the convergence, whatever the projection: measured on the ellipsoid.
        """
        offset_23 = np.array([[0.0, -0.5, 0.0], [0.0, 0.5, 0.0]]) * _NORTH_STEP_M
        (lon_0, lat_0, _), (lon_1, lat_1, _) = self.lonlat_height(np.asarray(position_3, np.float64) + offset_23)
        # The azimuth at the middle: forward at the start and backward from the end differ by the meridians' convergence.
        forward, backward, _ = self._geod.inv(lon_0, lat_0, lon_1, lat_1)
        start, end = np.deg2rad(forward), np.deg2rad(backward + 180.0)
        azimuth = np.arctan2(np.sin(start) + np.sin(end), np.cos(start) + np.cos(end))
        c, s = np.cos(azimuth), np.sin(azimuth)
        return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])

    def pose(self, world_from_cam_44: np.ndarray) -> GeoPose:
        """A local camera pose on Earth."""
        position_3 = world_from_cam_44[:3, 3]
        lon, lat, height = self.lonlat_height(position_3)[0]
        yaw, pitch, roll = yaw_pitch_roll_from_enu_camera(self.enu_from_world(position_3) @ world_from_cam_44[:3, :3])
        return GeoPose(float(lon), float(lat), float(height), yaw % 360.0, pitch, roll)
