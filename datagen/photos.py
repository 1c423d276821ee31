"""Real photos: decoding, undistortion and area-filtered resizing with exact intrinsics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import scipy.sparse

from datagen.cameras import Camera


def find_photo(folder: Path, file: str) -> Path:
    """Path of a camera's photo: as named below the folder, or by its bare name in it.

    Raises:
        FileNotFoundError: neither is there.
    """
    for path in (folder / file, folder / Path(file).name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"photo {file!r} of the cameras file is not in {folder}")


def read_photo(path: Path, camera: Camera) -> np.ndarray:
    """Photo as stored (EXIF orientation ignored, as the camera model does), uint8 RGB [H, W, 3].

    Raises:
        ValueError: not an image, or its size is not the camera's.
    """
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if photo is None:
        raise ValueError(f"photo {path}: not a readable image")
    height, width = photo.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise ValueError(f"photo {path} is {width} x {height} px, its camera says {camera.width} x {camera.height}")
    return cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)


def undistorted(photo_HW3: np.ndarray, camera: Camera) -> tuple[np.ndarray, Camera]:
    """Pinhole image of the same size, zoomed so that every pixel is covered, and its camera."""
    if not camera.distortion:
        return photo_HW3, camera
    # OpenCV counts pixels from the centre of the first one.
    half = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    size = (camera.width, camera.height)
    K_cv, coefficients = camera.K_33 - half, np.array(camera.distortion)
    new_cv, _ = cv2.getOptimalNewCameraMatrix(K_cv, coefficients, size, 0)
    map_x, map_y = cv2.initUndistortRectifyMap(K_cv, coefficients, None, new_cv, size, cv2.CV_32FC1)
    image = cv2.remap(photo_HW3, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return image, replace(camera, K_33=new_cv + half, distortion=())


def resized_camera(camera: Camera, shorter_side: int) -> Camera:
    """Camera of the photo scaled so that its shorter side is `shorter_side` pixels (never enlarged; 0 keeps the size).

    Both axes have the same scale: the remaining fraction of a pixel of the longer side is cropped evenly, so one focal
    length and a central principal point stay what they are.
    """
    scale = shorter_side / min(camera.width, camera.height)
    if shorter_side == 0 or scale >= 1:
        return camera
    width, height = int(camera.width * scale + 1e-6), int(camera.height * scale + 1e-6)
    K_33 = camera.K_33 * scale
    K_33[0, 2] += (width - camera.width * scale) / 2
    K_33[1, 2] += (height - camera.height * scale) / 2
    K_33[2, 2] = 1.0
    return replace(camera, K_33=K_33, width=width, height=height)


def area_resized(photo_HW3: np.ndarray, width: int, height: int) -> np.ndarray:
    """Photo scaled to width x height with one scale and an even crop; each pixel is the mean of the area it covers."""
    rows, cols = photo_HW3.shape[:2]
    if (cols, rows) == (width, height):
        return photo_HW3
    source_px = min(rows / height, cols / width)
    down = _box_filter(rows, height, source_px) @ photo_HW3.reshape(rows, -1).astype(np.float32)
    across = down.reshape(height, cols, 3).transpose(1, 0, 2).reshape(cols, -1)
    resized = (_box_filter(cols, width, source_px) @ across).reshape(width, height, 3).transpose(1, 0, 2)
    return np.ascontiguousarray(np.clip(np.rint(resized), 0, 255).astype(np.uint8))


def _box_filter(source: int, target: int, step: float) -> scipy.sparse.csr_matrix:
    """Weights [target, source]: target pixel i is the mean of `step` source pixels, the whole centred on the source."""
    first = (source - target * step) / 2
    low = first + step * np.arange(target)
    high = low + step
    count = int(np.ceil(step)) + 1
    index = np.floor(low).astype(int)[:, None] + np.arange(count)
    weight = np.clip(np.minimum(index + 1, high[:, None]) - np.maximum(index, low[:, None]), 0, None)
    row = np.repeat(np.arange(target), count)
    matrix = scipy.sparse.csr_matrix(
        (weight.ravel().astype(np.float32), (row, np.clip(index.ravel(), 0, source - 1))), shape=(target, source)
    )
    return scipy.sparse.diags((1 / np.asarray(matrix.sum(axis=1)).ravel()).astype(np.float32)) @ matrix
