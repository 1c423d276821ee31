"""OpenDroneMap projects: `shots.geojson` holds the poses, `cameras.json` the lenses (both of OpenSfM's conventions)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from rasterio.crs import CRS

from datagen import frames
from datagen.cameras import Camera, Lens, intrinsics, read_json, unique_stems
from datagen.flights import Flight, converted_with_north
from dataloader.images import read_header

# Where a project keeps its files; a folder that holds them side by side will do.
_SHOTS = ("odm_report/shots.geojson", "shots.geojson")
_CAMERAS = ("cameras.json", "odm_report/cameras.json")
_PROJECTIONS = ("odm_georeferencing/proj.txt", "proj.txt")
# The geographic position of a shot restates its projected one.
_SAME_PLACE_M = 2.0


def read_project(folder: Path, photo_paths) -> Flight:
    """Cameras of an OpenDroneMap project in its projected CRS.

    Args:
        photo_paths: photo name to its path; lens parameters are shares of the photo's longer side, so its size is needed.
    Raises:
        FileNotFoundError, ValueError: what is missing or contradictory, by file.
    """
    folder = Path(folder)
    shots_path = _first(folder, _SHOTS, "OpenDroneMap project")
    cameras_path = _first(folder, _CAMERAS, "OpenDroneMap project")
    shots, lenses = read_json(shots_path, "shots file"), read_json(cameras_path, "cameras file")
    try:
        features = shots["features"]
        if not features:
            raise ValueError("no shots")
        names = [feature["properties"]["filename"] for feature in features]
        cameras = [
            _camera(feature, stem, lenses, photo_paths(feature["properties"]["filename"]), cameras_path)
            for feature, stem in zip(features, unique_stems(names), strict=True)
        ]
        lonlat_N2 = np.array([feature["geometry"]["coordinates"][:2] for feature in features], np.float64)
    except KeyError as error:
        raise ValueError(f"shots file {shots_path}: entry {error} is missing") from None
    except (TypeError, IndexError) as error:
        raise ValueError(f"shots file {shots_path}: {error}") from None
    crs = _projection(folder, shots_path, lonlat_N2, np.stack([camera.world_from_cam_44[:2, 3] for camera in cameras]))
    return Flight(sorted(cameras, key=lambda camera: camera.stem), crs)


def _first(folder: Path, names: tuple[str, ...], what: str) -> Path:
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{what} {folder}: neither {' nor '.join(names)} there")
    return found


def _projection(folder: Path, shots_path: Path, lonlat_N2: np.ndarray, xy_N2: np.ndarray) -> CRS:
    """The CRS of the shots' translations: as the project says, else the UTM zone; the geographic positions must agree."""
    stated = next((folder / name for name in _PROJECTIONS if (folder / name).is_file()), None)
    if stated is not None:
        crs, source = frames.declared(stated.read_text(encoding="utf-8").strip()), str(stated)
    else:
        crs, source = frames.utm_of(*lonlat_N2.mean(axis=0)), "the UTM zone of the shots"
    expected_N2, _ = converted_with_north(lonlat_N2, frames.WGS84, crs)
    off_m = float(np.abs(expected_N2 - xy_N2).max())
    if off_m > _SAME_PLACE_M:
        raise ValueError(
            f"shots file {shots_path}: translations and geographic positions are {off_m:,.1f} m apart in "
            f"{frames.label(crs)} ({source}); put the project's odm_georeferencing/proj.txt beside it"
        )
    return crs


def _camera(feature: dict, stem: str, lenses: dict, photo: Path, cameras_path: Path) -> Camera:
    shot = feature["properties"]
    header = read_header(photo)
    world_from_cam_44 = np.eye(4)
    # The rotation takes world axes to the camera's; the translation is the camera's centre.
    world_from_cam_44[:3, :3] = cv2.Rodrigues(np.array(shot["rotation"], np.float64))[0].T
    world_from_cam_44[:3, 3] = shot["translation"]
    K_33, lens = _optics(_lens_of(shot, lenses, cameras_path), header.width, header.height, f"{cameras_path}: {stem}")
    return Camera(stem, world_from_cam_44, K_33, header.width, header.height, lens, shot["filename"])


def _lens_of(shot: dict, lenses: dict, cameras_path: Path) -> dict:
    if shot.get("camera") in lenses:
        return lenses[shot["camera"]]
    # Older versions do not name the camera of a shot, but repeat its size and focal length.
    same = [
        lens
        for lens in lenses.values()
        if (lens.get("width"), lens.get("height")) == (shot.get("width"), shot.get("height"))
        and abs(float(lens.get("focal", lens.get("focal_x", 0))) - float(shot.get("focal", 0))) < 1e-6
    ]
    if len(same) != 1 and len(lenses) != 1:
        raise ValueError(f"cameras file {cameras_path}: {len(same)} of {len(lenses)} cameras fit shot {shot['filename']}")
    return same[0] if len(same) == 1 else next(iter(lenses.values()))


def _optics(lens: dict, width: int, height: int, name: str) -> tuple[np.ndarray, Lens | None]:
    """K [3, 3] and lens at a photo's size; lengths are in units of the longer side, the centre is the photo's."""
    size = max(width, height)
    if "width" in lens and abs(lens["width"] / lens["height"] - width / height) > 0.01:
        raise ValueError(f"{name}: photo of {width} x {height} px, its camera is of {lens['width']} x {lens['height']}")
    kind = lens.get("projection_type", "perspective")
    fx = size * float(lens.get("focal_x", lens.get("focal", 0)))
    fy = size * float(lens.get("focal_y", lens.get("focal", 0)))
    cx, cy = width / 2 + size * float(lens.get("c_x", 0)), height / 2 + size * float(lens.get("c_y", 0))
    if not (np.isfinite([fx, fy, cx, cy]).all() and min(fx, fy) > 0):
        raise ValueError(f"{name}: focal lengths {fx:g}, {fy:g} px are none")
    pinhole = (fx, fy, cx, cy)
    k1, k2, k3, k4, p1, p2 = (float(lens.get(key, 0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    K_33 = intrinsics(*pinhole)
    if kind in ("fisheye", "fisheye_opencv"):
        return K_33, Lens("OPENCV_FISHEYE", (*pinhole, k1, k2, k3, k4))
    if kind not in ("perspective", "brown", "simple_radial", "radial"):
        raise ValueError(f"{name}: projection type {kind!r} is not known (perspective, brown, radial, fisheye)")
    if not any((k1, k2, k3, p1, p2)):
        return K_33, None
    if k3:
        return K_33, Lens("FULL_OPENCV", (*pinhole, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0))
    return K_33, Lens("OPENCV", (*pinhole, k1, k2, p1, p2))
