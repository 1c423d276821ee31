"""The benchmark's world: Earth-centred, Earth-fixed metres (EPSG 4978), minus a fixed origin of each scene."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyproj

from geometry.attitude import enu_from_camera, ned_from_body, yaw_pitch_roll_from_enu_camera

_TO_ECEF = pyproj.Transformer.from_crs(4979, 4978, always_xy=True)
_TO_LONLAT = pyproj.Transformer.from_crs(4978, 4979, always_xy=True)
# Columns of a body (forward, right, down) rotation reordered to camera axes (right, down, forward).
_CAMERA_COLUMNS = [1, 2, 0]


@dataclass(frozen=True)
class BenchmarkScene:
    """One scene. Attributes: name: of its folders. lon_deg, lat_deg, height_m: its origin (EPSG 4979)."""

    name: str
    lon_deg: float
    lat_deg: float
    height_m: float

    @cached_property
    def origin_3(self) -> np.ndarray:
        """Origin in ECEF, metres, float64."""
        return np.array(_TO_ECEF.transform(self.lon_deg, self.lat_deg, self.height_m))

    def frame(self) -> dict:
        """The world frame as scene and section records keep it; see `datagen.sections.frame_of`."""
        return {
            "crs": pyproj.CRS.from_epsg(4978).to_wkt(),
            "crs_code": "EPSG:4978",
            "origin_xyz": [float(value) for value in self.origin_3],
        }


SCENES = {
    scene.name: scene
    for scene in (
        BenchmarkScene("urbanscape", 6.5668, 46.5191, 390.0),
        BenchmarkScene("naturescape", 7.065, 46.3705, 1410.0),
    )
}


def ecef_from_ned(lon_deg: float, lat_deg: float) -> np.ndarray:
    """Rotation [3, 3]: its columns are north, east and down at a place, in ECEF."""
    lon, lat = np.deg2rad([lon_deg, lat_deg])
    north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    east = np.array([-np.sin(lon), np.cos(lon), 0.0])
    return np.stack((north, east, np.cross(north, east)), 1)


def ecef_from_enu(lon_deg: float, lat_deg: float) -> np.ndarray:
    """Rotation [3, 3]: its columns are east, north and up at a place, in ECEF."""
    north, east, down = ecef_from_ned(lon_deg, lat_deg).T
    return np.stack((east, north, -down), 1)


def world_from_camera(position_3: np.ndarray, yaw_pitch_roll_deg_3: np.ndarray, scene: BenchmarkScene) -> np.ndarray:
    """Camera-to-world pose [4, 4], OpenCV axes, in the scene's frame.

    Args:
        position_3: ECEF, metres. yaw_pitch_roll_deg_3: in the north-east-down frame at that position.
    """
    lon_deg, lat_deg, _ = _TO_LONLAT.transform(*position_3)
    pose_44 = np.eye(4)
    pose_44[:3, :3] = (ecef_from_ned(lon_deg, lat_deg) @ ned_from_body(*yaw_pitch_roll_deg_3))[:, _CAMERA_COLUMNS]
    pose_44[:3, 3] = position_3 - scene.origin_3
    return pose_44


def raw_pose(enu_from_cam_44: np.ndarray, scene: BenchmarkScene) -> np.ndarray:
    """ECEF position and yaw, pitch, roll in degrees [6] of a camera in the east-north-up frame at the scene's origin."""
    rotation_33 = ecef_from_enu(scene.lon_deg, scene.lat_deg)
    position_3 = ecef_points(enu_from_cam_44[:3, 3], scene)
    lon_deg, lat_deg, _ = _TO_LONLAT.transform(*position_3)
    # The camera's own horizon is tilted against the origin's, a second of arc every 31 m.
    local_33 = ecef_from_enu(lon_deg, lat_deg).T @ rotation_33 @ enu_from_cam_44[:3, :3]
    angles_3 = np.array(yaw_pitch_roll_from_enu_camera(local_33))
    assert np.allclose(enu_from_camera(*angles_3), local_33, atol=1e-9)
    return np.concatenate((position_3, angles_3))


def ecef_points(enu_X3: np.ndarray, scene: BenchmarkScene) -> np.ndarray:
    """ECEF points [..., 3] of points in the east-north-up frame at the scene's origin."""
    return enu_X3 @ ecef_from_enu(scene.lon_deg, scene.lat_deg).T + scene.origin_3
