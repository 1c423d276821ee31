"""nerfstudio's `transforms.json`: cameras with OpenGL axes, in the frame of the model that it was made from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from datagen.cameras import Camera, Lens, checked_pose, intrinsics, read_json, unique_stems

# Camera models by whether they bend straight lines; others have no pinhole image or no known meaning.
_PERSPECTIVE, _FISHEYE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE"), "OPENCV_FISHEYE"
_PARAMETERS = (
    "camera_model", "w", "h", "fl_x", "fl_y", "cx", "cy", "camera_angle_x", "k1", "k2", "k3", "k4", "p1", "p2",
)  # fmt: skip
# OpenGL cameras look along -z with y up.
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def read_transforms(path: Path) -> list[Camera]:
    """Cameras of a transforms.json, with poses in the frame of the original model.

    `applied_transform` (what nerfstudio did to the model's frame) is undone. Intrinsics stand at the top or per frame;
    OPENCV's k1 k2 p1 p2 (k3) and OPENCV_FISHEYE's k1 to k4 are kept.

    Raises:
        FileNotFoundError, ValueError: missing file, entries, or a camera model without a pinhole image; named.
    """
    path = Path(path)
    document = read_json(path, "transforms file")
    try:
        frames = document["frames"]
        if not frames:
            raise ValueError("'frames' is empty")
        undo_44 = _undone(document.get("applied_transform"))
        stems = unique_stems([frame["file_path"] for frame in frames])
        cameras = [
            _camera({**{name: document[name] for name in _PARAMETERS if name in document}, **frame}, stem, undo_44, path)
            for frame, stem in zip(frames, stems, strict=True)
        ]
    except KeyError as error:
        raise ValueError(f"transforms file {path}: entry {error} is missing") from None
    except (TypeError, ValueError) as error:
        text = str(error)
        raise ValueError(text if str(path) in text else f"transforms file {path}: {text}") from None
    return sorted(cameras, key=lambda camera: camera.stem)


def _undone(applied) -> np.ndarray:
    """Inverse [4, 4] of `applied_transform` [3, 4]."""
    if applied is None:
        return np.eye(4)
    applied_44 = np.eye(4)
    applied_44[:3] = np.array(applied, np.float64)[:3]
    R_33 = applied_44[:3, :3]
    if not np.allclose(R_33 @ R_33.T, np.eye(3), atol=1e-6):
        raise ValueError("'applied_transform' is not rigid: the poses are no longer in metres; write it without scaling")
    return np.linalg.inv(applied_44)


def _camera(frame: dict, stem: str, undo_44: np.ndarray, path: Path) -> Camera:
    file = frame["file_path"]
    name = f"transforms file {path}, frame {file}"
    world_from_gl_44 = checked_pose(frame["transform_matrix"], name)
    width, height = int(frame["w"]), int(frame["h"])
    fx = float(frame["fl_x"]) if "fl_x" in frame else width / (2 * math.tan(float(frame["camera_angle_x"]) / 2))
    fy = float(frame.get("fl_y", fx))
    cx, cy = float(frame.get("cx", width / 2)), float(frame.get("cy", height / 2))
    if not (np.isfinite([fx, fy, cx, cy]).all() and min(width, height, fx, fy) > 0):
        raise ValueError(f"{name}: {width} x {height} px with focal lengths {fx:g}, {fy:g} px is no camera")
    pose_44 = checked_pose(undo_44 @ world_from_gl_44 @ _OPENCV_FROM_OPENGL, name)
    return Camera(stem, pose_44, intrinsics(fx, fy, cx, cy), width, height, _lens(frame, (fx, fy, cx, cy), name), file)


def _lens(frame: dict, pinhole: tuple[float, float, float, float], name: str) -> Lens | None:
    model = frame.get("camera_model", "OPENCV")
    k1, k2, k3, k4, p1, p2 = (float(frame.get(key, 0.0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if model == _FISHEYE:
        return Lens(_FISHEYE, (*pinhole, k1, k2, k3, k4))
    if model not in _PERSPECTIVE:
        raise ValueError(f"{name}: camera model {model!r} is not one of {', '.join((*_PERSPECTIVE, _FISHEYE))}")
    if not any((k1, k2, k3, k4, p1, p2)):
        return None
    if k3 or k4:
        return Lens("FULL_OPENCV", (*pinhole, k1, k2, p1, p2, k3, k4, 0.0, 0.0))
    return Lens("OPENCV", (*pinhole, k1, k2, p1, p2))
