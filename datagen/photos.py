"""Real photos: decoding, undistortion and area-filtered resizing with exact intrinsics."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import scipy.sparse

from datagen.cameras import Camera, Lens, intrinsics
from dataloader.images import ImageHeader, decode_image, read_header

log = logging.getLogger(__name__)


def find_photos(folder: Path, cameras: list[Camera]) -> dict[str, Path]:
    """Photo of every camera by stem: as its file is named below the folder, or by the bare name in it.

    Raises:
        FileNotFoundError: one is not there. ValueError: two cameras have one photo.
    """
    paths = {camera.stem: find_photo(folder, camera.file) for camera in cameras}
    owner: dict[Path, str] = {}
    for stem, path in paths.items():
        if path in owner:
            raise ValueError(f"photo {path} is the one of two cameras ({owner[path]}, {stem})")
        owner[path] = stem
    return paths


def find_photo(folder: Path, file: str) -> Path:
    """A photo as its file is named below the folder, or by the bare name in it; FileNotFoundError when it is not there."""
    for path in (folder / file, folder / Path(file).name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"photo {file!r} of the cameras file is not in {folder}")


def check_photos(cameras: list[Camera], paths: dict[str, Path]) -> None:
    """Compares the photos' headers with their cameras; one warning says what the EXIF orientation of some means.

    Raises:
        ValueError: a file is not an image, or not of its camera's size.
    """
    turned = defaultdict(list)
    for camera in cameras:
        header = read_header(paths[camera.stem])
        _check_size(header, camera, paths[camera.stem])
        if header.orientation != 1:
            turned[header.orientation].append(camera.stem)
    for orientation, stems in sorted(turned.items()):
        log.warning(
            "EXIF orientation %d in %d of %d photos (such as %s): the pixels are taken as stored, as COLMAP does; poses "
            "that belong to the turned picture would be wrong",
            orientation, len(stems), len(cameras), stems[0],
        )  # fmt: skip


def _check_size(header: ImageHeader, camera: Camera, path: Path) -> None:
    stored, expected = (header.width, header.height), (camera.width, camera.height)
    if stored == expected:
        return
    message = f"photo {path} is {stored[0]} x {stored[1]} px, its camera says {expected[0]} x {expected[1]}"
    if header.is_turned_sideways and stored[::-1] == expected:
        message += (
            f", which is its size after turning it by its EXIF orientation ({header.orientation}): cameras must belong "
            "to the pixels as stored (COLMAP's convention); store the photos upright without the tag, or turn the cameras"
        )
    raise ValueError(message)


def read_photo(path: Path, camera: Camera) -> np.ndarray:
    """Photo as stored (see `dataloader.images`), uint8 RGB [H, W, 3].

    Raises:
        ValueError: not a whole image, or its size is not the camera's.
    """
    photo_HW3 = decode_image(path)
    _check_size(ImageHeader(photo_HW3.shape[1], photo_HW3.shape[0], 1), camera, path)
    return photo_HW3


def pinhole_camera(camera: Camera) -> Camera:
    """The camera of the undistorted photo: of the photo's size, zoomed evenly so that the photo covers every pixel.

    Source: COLMAP's image undistortion without blank pixels, scaled to the photo's size about its centre.
    """
    if camera.lens is None:
        return camera
    import pycolmap

    gapless = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(blank_pixels=0.0), _colmap_camera(camera))
    zoom = max(camera.width / gapless.width, camera.height / gapless.height)
    K_33 = intrinsics(*(zoom * gapless.params))
    K_33[0, 2] += (camera.width - zoom * gapless.width) / 2
    K_33[1, 2] += (camera.height - zoom * gapless.height) / 2
    return replace(camera, K_33=K_33, lens=None)


def undistorted(photo_HW3: np.ndarray, camera: Camera) -> tuple[np.ndarray, Camera]:
    """Pinhole image of a photo, uint8 [H, W, 3], and its camera; see `pinhole_camera`."""
    if camera.lens is None:
        return photo_HW3, camera
    pinhole = pinhole_camera(camera)
    K_33 = pinhole.K_33
    map_HW2 = _lens_map(camera.lens, camera.width, camera.height, (K_33[0, 0], K_33[1, 1], K_33[0, 2], K_33[1, 2]))
    return cv2.remap(photo_HW3, map_HW2, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), pinhole


# The photos of a flight share one map, which takes longer than all that is done with it.
@lru_cache(maxsize=2)
def _lens_map(lens: Lens, width: int, height: int, fx_fy_cx_cy: tuple[float, float, float, float]) -> np.ndarray:
    """Where the pixels of a pinhole image lie in the photo, float32 [H, W, 2], as cv2.remap counts (0 is a centre)."""
    colmap = _colmap_camera(Camera("", np.eye(4), np.eye(3), width, height, lens))
    fx, fy, cx, cy = fx_fy_cx_cy
    x_W = (np.arange(width) + 0.5 - cx) / fx
    map_HW2 = np.empty((height, width, 2), np.float32)
    for row in range(height):
        y = (row + 0.5 - cy) / fy
        rays_W3 = np.stack((x_W, np.full(width, y), np.ones(width)), 1)
        map_HW2[row] = colmap.img_from_cam(rays_W3) - 0.5
    slack_px = 0.02 * max(width, height)
    if not ((map_HW2 > -slack_px) & (map_HW2 < np.array((width, height)) + slack_px)).all():
        raise ValueError(
            f"lens {lens.model} {list(lens.parameters)} does not cover a pinhole image of {width} x {height} px"
        )
    return map_HW2


def _colmap_camera(camera: Camera):
    import pycolmap

    return pycolmap.Camera(
        model=camera.lens.model, width=camera.width, height=camera.height, params=list(camera.lens.parameters)
    )


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
