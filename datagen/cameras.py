"""Cameras and where they come from: cameras.json, COLMAP models, folders of pose files."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from geometry.poses import check_pose

# COLMAP camera models -> positions of (fx, fy, cx, cy) in its parameters; the rest are OpenCV distortion coefficients.
_COLMAP_MODELS = {
    "SIMPLE_PINHOLE": (0, 0, 1, 2),
    "PINHOLE": (0, 1, 2, 3),
    "SIMPLE_RADIAL": (0, 0, 1, 2),
    "RADIAL": (0, 0, 1, 2),
    "OPENCV": (0, 1, 2, 3),
    "FULL_OPENCV": (0, 1, 2, 3),
}


@dataclass(frozen=True)
class Camera:
    """A named pinhole view.

    Attributes:
        world_from_cam_44: OpenCV camera axes, metres.
        K_33: continuous pixels of an image width x height.
        distortion: OpenCV coefficients (k1 k2 p1 p2 k3 ...) of the photo; empty for a pinhole image.
        file: name of the photo, empty when there is none.
    """

    stem: str
    world_from_cam_44: np.ndarray
    K_33: np.ndarray
    width: int
    height: int
    distortion: tuple[float, ...] = ()
    file: str = field(default="")


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """K [3, 3] float64."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def centred_intrinsics(focal_px: float, width: int, height: int) -> np.ndarray:
    """K [3, 3] of an image with its principal point at the centre."""
    return intrinsics(focal_px, focal_px, width / 2, height / 2)


def read_pose_file(path: Path) -> np.ndarray:
    """Camera-to-world matrix [4, 4] from a text file.

    Raises:
        ValueError: not four rows of four numbers, or not a rigid transform.
    """
    rows = [line.split() for line in Path(path).read_text().splitlines() if line.strip()]
    if [len(row) for row in rows] != [4, 4, 4, 4]:
        raise ValueError(f"pose file {path}: expected 4 rows of 4 numbers, found rows of {[len(row) for row in rows]}")
    return _checked_pose(rows, f"pose file {path}")


def _checked_pose(rows, name: str) -> np.ndarray:
    try:
        pose_44 = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a 4 x 4 matrix of numbers") from None
    check_pose(torch.from_numpy(pose_44), name)
    return pose_44


def read_pose_folder(folder: Path, K_33: np.ndarray, width: int, height: int) -> list[Camera]:
    """Cameras of a folder of pose files, such as a section's `poses/`."""
    paths = sorted(Path(folder).glob("*.txt"))
    if not paths:
        raise ValueError(f"pose folder {folder}: no *.txt pose files")
    return [Camera(path.stem, read_pose_file(path), K_33, width, height) for path in paths]


def read_cameras_json(path: Path) -> list[Camera]:
    """Cameras of a `cameras.json`: width, height, focal_length_px, optional principal_point_px and distortion, photos.

    Raises:
        FileNotFoundError, ValueError: missing file or entries, named.
    """
    path = Path(path)
    document = read_json(path, "cameras file")
    try:
        width, height = int(document["width"]), int(document["height"])
        focal = document["focal_length_px"]
        fx, fy = (focal, focal) if np.isscalar(focal) else focal
        cx, cy = document.get("principal_point_px", (width / 2, height / 2))
        entries = document["photos"]
        distortion = tuple(float(k) for k in document.get("distortion", ()))
        K_33 = intrinsics(float(fx), float(fy), float(cx), float(cy))
        if not entries:
            raise ValueError("'photos' is empty")
        cameras = []
        for number, entry in enumerate(entries):
            file = entry["file"]
            pose_44 = _checked_pose(entry["cam_to_world"], f"{path}, photo {number} ({file})")
            cameras.append(Camera(Path(file).stem, pose_44, K_33, width, height, distortion, file))
    except KeyError as error:
        raise ValueError(f"cameras file {path}: entry {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"cameras file {path}: {error}") from None
    return _sorted_unique(cameras, path)


def read_colmap(folder: Path) -> list[Camera]:
    """Cameras of a COLMAP text or binary model whose frame is the geodata's CRS.

    Raises:
        FileNotFoundError: no model there. ValueError: a camera model that cannot be undistorted, or no images.
    """
    import pycolmap

    folder = Path(folder)
    if not any((folder / f"images{suffix}").is_file() for suffix in (".txt", ".bin")):
        raise FileNotFoundError(f"COLMAP model {folder}: no images.txt or images.bin there")
    try:
        model = pycolmap.Reconstruction(str(folder))
    except (ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"COLMAP model {folder}: cannot be read ({error})") from None
    cameras = []
    for image in model.images.values():
        intrinsic = model.cameras[image.camera_id]
        kind = str(getattr(intrinsic.model, "name", intrinsic.model))
        if kind not in _COLMAP_MODELS:
            raise ValueError(
                f"COLMAP model {folder}: camera model {kind} of {image.name} is not supported; undistort the "
                f"photos first or use one of {sorted(_COLMAP_MODELS)}"
            )
        parameters = [float(value) for value in intrinsic.params]
        used = _COLMAP_MODELS[kind]
        # Before pycolmap 3.12 this was an attribute.
        rigid = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
        world_from_cam_44 = np.eye(4)
        world_from_cam_44[:3] = rigid.inverse().matrix()
        distortion = tuple(parameters[max(used) + 1 :])
        cameras.append(
            Camera(
                Path(image.name).stem,
                world_from_cam_44,
                intrinsics(*(parameters[i] for i in used)),
                int(intrinsic.width),
                int(intrinsic.height),
                distortion if any(distortion) else (),
                image.name,
            )
        )
    if not cameras:
        raise ValueError(f"COLMAP model {folder}: no registered image")
    return _sorted_unique(cameras, folder)


def read_photo_cameras(cameras_json: Path | None, colmap: Path | None) -> list[Camera]:
    """Cameras from whichever source is given."""
    return read_cameras_json(cameras_json) if cameras_json is not None else read_colmap(colmap)


def _sorted_unique(cameras: list[Camera], source: Path) -> list[Camera]:
    cameras = sorted(cameras, key=lambda camera: camera.stem)
    for first, second in itertools.pairwise(cameras):
        if first.stem == second.stem:
            raise ValueError(f"{source}: two photos are called {first.stem!r} ({first.file}, {second.file})")
    return cameras


def read_json(path: Path, what: str) -> dict:
    """A JSON object from a file; every failure names the file."""
    try:
        document = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise FileNotFoundError(f"{what} {path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} {path}: not JSON ({error})") from None
    if not isinstance(document, dict):
        raise ValueError(f"{what} {path}: expected a JSON object, found {type(document).__name__}")
    return document
