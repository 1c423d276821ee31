"""Where a photo's intrinsics come from: its EXIF, a calibration file, a COLMAP model, numbers, or the training's camera.

All of them are of the pixels as stored unless a calibration names a size that only the turned picture has.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from datagen.cameras import Camera, Lens, centred_intrinsics, intrinsics, json_camera, read_colmap, read_json
from dataloader.images import ImageHeader
from dataloader.labels import read_calibration
from runs.record import CameraRecord

log = logging.getLogger(__name__)

_EXIF_IFD = 0x8769
_FOCAL_MM, _FOCAL_35MM, _WIDTH = 0x920A, 0xA405, 0xA002
_PLANE_X_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
# Diagonal of a frame of 35 mm film: what equivalent focal lengths are relative to (CIPA DCG-001).
_FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
# A focal length outside of these, in image diagonals, is a damaged number.
_PLAUSIBLE_DIAGONALS = (0.1, 50.0)
# Cameras of a training that differ by less than this share count as one.
_ONE_CAMERA = 0.02
_SAME_ASPECT = 0.005

CameraOf = Callable[[Path, ImageHeader], Camera]


@dataclass(frozen=True)
class Intrinsics:
    """Gives every photo its camera.

    Attributes:
        camera_of: the camera of a file with its header; ValueError where nothing is known. The size of the camera is that of
            the stored or, for a turned photo, of the upright picture.
        description: where they come from, for one line of the log.
    """

    camera_of: CameraOf
    description: str


def intrinsics_from(words: Sequence[str], training: CameraRecord | None) -> Intrinsics:
    """The intrinsics that `--intrinsics` asks for.

    Args:
        words: `exif`, one or four numbers (f, or fx fy cx cy, px), or a file or folder: one, four or nine numbers as text, a
            JSON with width, height, focal_length_px (and principal_point_px, distortion, photos), a COLMAP model or its
            cameras.txt.
        training: cameras that the network was trained on; takes the place of missing EXIF where it was a single one.
    Raises:
        ValueError, FileNotFoundError: neither of these; names it.
    """
    if list(words) == ["exif"]:
        return Intrinsics(lambda path, header: _exif_camera(path, header, training), "the photos' EXIF")
    numbers = _numbers(words)
    if numbers is not None:
        return Intrinsics(lambda path, header: _numbered_camera(numbers, header), f"given, {' '.join(words)} px")
    if len(words) != 1:
        raise ValueError(f"--intrinsics {' '.join(words)}: give exif, a file, one number (f) or four (fx fy cx cy)")
    path = Path(words[0])
    if not path.exists():
        raise FileNotFoundError(f"--intrinsics {path}: no such file (nor exif, nor one or four numbers)")
    return Intrinsics(_from_file(path), str(path))


def _numbers(words: Sequence[str]) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(word) for word in words)
    except ValueError:
        return None
    if len(numbers) not in (1, 4):
        raise ValueError(f"--intrinsics {' '.join(words)}: one number (f) or four (fx fy cx cy) are needed, in px")
    if not all(math.isfinite(v) for v in numbers) or min(numbers[:2]) <= 0:
        raise ValueError(f"--intrinsics {' '.join(words)}: focal lengths must be positive")
    return numbers


def _numbered_camera(numbers: tuple[float, ...], header: ImageHeader) -> Camera:
    size = header.width, header.height
    K_33 = centred_intrinsics(numbers[0], *size) if len(numbers) == 1 else intrinsics(*numbers)
    return Camera("", np.eye(4), K_33, *size)


def _from_file(path: Path) -> CameraOf:
    if path.is_dir():
        by_name = {Path(camera.file).name: camera for camera in read_colmap(path)}
        return lambda photo, header: _fitted(_named(by_name, photo, path), photo, header, path)
    if path.suffix.lower() == ".json":
        return _from_json(path)
    if path.suffix.lower() == ".txt" and _is_colmap(path):
        camera = _colmap_camera(path)
        return lambda photo, header: _fitted(camera, photo, header, path)

    def of_text(photo: Path, header: ImageHeader) -> Camera:
        K_33 = read_calibration(path, header.height, header.width).numpy()
        return Camera("", np.eye(4), K_33, header.width, header.height)

    of_text(path, ImageHeader(1000, 1000, 1))  # refuses a damaged file before any photo is read
    return of_text


def _from_json(path: Path) -> CameraOf:
    content = read_json(path, "calibration")
    photos = content.get("photos") or []
    try:
        by_name = {
            Path(entry["file"]).name: json_camera({**content, **entry}, Path(entry["file"]).stem, np.eye(4))
            for entry in photos
        }
        common = json_camera({**content, "file": path.name}, "", np.eye(4)) if "focal_length_px" in content else None
    except KeyError as error:
        raise ValueError(f"calibration {path}: entry {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"calibration {path}: {error}") from None
    if common is None and not by_name:
        raise ValueError(f"calibration {path}: entry 'focal_length_px' is missing")
    return lambda photo, header: _fitted(
        by_name.get(photo.name) or common or _named(by_name, photo, path), photo, header, path
    )


def _named(by_name: dict[str, Camera], photo: Path, source: Path) -> Camera:
    if photo.name not in by_name:
        raise ValueError(f"{source} holds no camera for {photo.name}")
    return by_name[photo.name]


def _is_colmap(path: Path) -> bool:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip() and not line.startswith("#")]
    return bool(lines) and len(lines[0].split()) > 4 and lines[0].split()[1].replace("_", "").isalpha()


def _colmap_camera(path: Path) -> Camera:
    """The only camera of a COLMAP cameras.txt."""
    import pycolmap

    lines = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) != 1:
        raise ValueError(f"{path} holds {len(lines)} cameras; name the folder of the whole model, or a file with one")
    try:
        _, model, width, height, *parameters = lines[0]
        camera = pycolmap.Camera(
            model=model, width=int(width), height=int(height), params=[float(value) for value in parameters]
        )
        K_33 = np.array(camera.calibration_matrix(), np.float64)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path}: not a camera with a pinhole image ({error})") from None
    if not camera.verify_params():
        raise ValueError(f"{path}: the parameters do not fit the model {model}")
    bent = any(camera.params[i] for i in camera.extra_params_idxs()) or "FISHEYE" in model
    lens = Lens(model, tuple(float(value) for value in camera.params)) if bent else None
    return Camera("", np.eye(4), K_33, camera.width, camera.height, lens)


def _fitted(camera: Camera, photo: Path, header: ImageHeader, source: Path) -> Camera:
    """The camera at the size of the photo, stored or turned upright; ValueError where its shape is another."""
    stored = header.width, header.height
    upright = stored[::-1] if header.is_turned_sideways else stored
    for width, height in (stored, upright):
        scale = width / camera.width
        if abs(height / (scale * camera.height) - 1) < _SAME_ASPECT:
            return _rescaled(camera, width, height)
    raise ValueError(
        f"{photo.name}: {source} is of pictures of {camera.width} x {camera.height} px; the photo's {stored[0]} x "
        f"{stored[1]} px are of another shape"
    )


def _rescaled(camera: Camera, width: int, height: int) -> Camera:
    if (width, height) == (camera.width, camera.height):
        return camera
    scale_x, scale_y = width / camera.width, height / camera.height
    K_33, lens = np.diag((scale_x, scale_y, 1.0)) @ camera.K_33, camera.lens
    if lens is not None:
        import pycolmap

        scaled = pycolmap.Camera(model=lens.model, width=camera.width, height=camera.height, params=list(lens.parameters))
        scaled.rescale(width, height)
        K_33 = np.array(scaled.calibration_matrix(), np.float64)
        lens = Lens(lens.model, tuple(float(value) for value in scaled.params))
    return replace(camera, K_33=K_33, width=width, height=height, lens=lens)


def _exif_camera(path: Path, header: ImageHeader, training: CameraRecord | None) -> Camera:
    size = header.width, header.height
    found = _exif_focal_px(path, *size)
    if found is not None:
        focal_px, how = found
        log.debug("%s: focal length %.0f px, %s", path.name, focal_px, how)
    elif training is not None and training.focal_max <= (1 + _ONE_CAMERA) * training.focal_min:
        focal_px = 0.5 * (training.focal_min + training.focal_max) * min(size)
        _say_once(f"without EXIF the photos are taken to be from the training's camera (f = {focal_px:.0f} px at "
                  f"{size[0]} x {size[1]} px); --intrinsics says otherwise")  # fmt: skip
    else:
        raise ValueError(
            f"no intrinsics: the EXIF of {path.name} names no focal length; give --intrinsics FILE or fx fy cx cy"
        )
    return Camera("", np.eye(4), centred_intrinsics(focal_px, *size), *size)


_said: set[str] = set()


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        log.warning("%s", message)


def _exif_focal_px(path: Path, width: int, height: int) -> tuple[float, str] | None:
    """(focal length in px, what it was taken from), or None.

    The principal point is taken to be the centre and distortion none: EXIF knows neither.
    """
    diagonal_px = math.hypot(width, height)
    try:
        with Image.open(path) as image:
            exif = image.getexif().get_ifd(_EXIF_IFD)
    except OSError:  # a video, or no picture at all
        return None
    for focal_px, how in (
        (_number(exif.get(_FOCAL_35MM)) * diagonal_px / _FILM_DIAGONAL_MM, "from the 35 mm equivalent, rounded to whole mm"),
        (_from_focal_plane(exif, width), "from the resolution of the focal plane"),
        (_from_sensor_table(path), "guessed from a table of sensors"),
    ):
        if _PLAUSIBLE_DIAGONALS[0] <= focal_px / diagonal_px <= _PLAUSIBLE_DIAGONALS[1]:
            _say_once(f"focal lengths {how}; the principal point is taken to be the centre, distortion none")
            return focal_px, how
    return None


def _number(value: object) -> float:
    """A number of EXIF; 0 where it has none or not a finite one."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _from_focal_plane(exif: dict, width: int) -> float:
    mm_per_unit = _MM_PER_UNIT.get(int(_number(exif.get(_PLANE_UNIT))), 0.0)
    taken_width = _number(exif.get(_WIDTH)) or width
    if not mm_per_unit:
        return 0.0
    px_per_mm = _number(exif.get(_PLANE_X_RESOLUTION)) / mm_per_unit
    return _number(exif.get(_FOCAL_MM)) * px_per_mm * width / taken_width


def _from_sensor_table(path: Path) -> float:
    """By the maker's and the model's name in COLMAP's table; 0 where it knows neither."""
    import pycolmap

    camera = pycolmap.infer_camera_from_image(str(path))
    return float(camera.mean_focal_length()) if camera.has_prior_focal_length else 0.0
