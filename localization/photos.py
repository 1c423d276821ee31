"""Photos and frames of videos as they are localised: upright, undistorted, with intrinsics, and when they were taken."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from datagen.cameras import intrinsics
from datagen.photos import undistorted
from dataloader.images import ImageHeader, decode_image, read_header
from dataloader.section import IMAGE_SUFFIXES
from localization.intrinsics import Intrinsics

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mts", ".mpg", ".mpeg"}
_EXIF_IFD, _TAKEN, _TAKEN_OFFSET, _TAKEN_SUBSECOND = 0x8769, 0x9003, 0x9011, 0x9291
# GeoTIFF: ModelPixelScale and ModelTransformation.
_PLACE_TAGS = (33550, 34264)
# What turns the stored pixels upright: (exchange the axes, mirror x, mirror y), in this order.
_UPRIGHT = {
    1: (False, False, False), 2: (False, True, False), 3: (False, True, True), 4: (False, False, True),
    5: (True, False, False), 6: (True, True, False), 7: (True, True, True), 8: (True, False, True),
}  # fmt: skip
# All others undo themselves.
_BACK = {6: 8, 8: 6}


@dataclass(frozen=True)
class Photo:
    """A pinhole picture.

    Attributes:
        name: see `localization.answer.Answer`.
        image_HW3: uint8 RGB, upright and without distortion. K_33: its intrinsics, float64, pixels.
        time_s: when it was taken, seconds since the epoch, or since the video's start; None where nothing says.
        orientation: EXIF's, by which the stored picture was turned; 1 where it was not.
    """

    name: str
    image_HW3: np.ndarray
    K_33: np.ndarray
    time_s: float | None = None
    orientation: int = 1

    def as_stored(self) -> Photo:
        """The picture before it was turned."""
        image_HW3, K_33 = upright(self.image_HW3, self.K_33, _BACK.get(self.orientation, self.orientation))
        return replace(self, image_HW3=image_HW3, K_33=K_33, orientation=1)


def read_photo(path: Path, given: Intrinsics, name: str | None = None) -> Photo:
    """A photo of any size and orientation.

    Raises:
        FileNotFoundError, ValueError: not a whole picture, a map, or its intrinsics are not known.
    """
    header = read_header(path)
    if is_map(path):
        raise ValueError(f"{path} is a map (GeoTIFF), not a photo")
    camera = given.camera_of(path, header)
    image_HW3 = decode_image(path)
    stored = header.width, header.height
    if (camera.width, camera.height) != stored:  # a calibration of the upright picture
        image_HW3, _ = upright(image_HW3, np.eye(3), header.orientation)
        image_HW3, camera = undistorted(image_HW3, camera)
        K_33 = camera.K_33
    else:
        image_HW3, camera = undistorted(image_HW3, camera)
        image_HW3, K_33 = upright(image_HW3, camera.K_33, header.orientation)
    return Photo(path.name if name is None else name, image_HW3, K_33, taken_s(path), header.orientation)


def turn_by(orientation: int) -> np.ndarray | None:
    """Rotation [3, 3] from the camera axes of a stored picture to those of the upright one; None where that is mirrored."""
    exchange, mirror_x, mirror_y = _UPRIGHT[orientation]
    turn_33 = np.eye(3)[[1, 0, 2]] if exchange else np.eye(3)
    turn_33 = np.diag([-1.0 if mirror_x else 1.0, -1.0 if mirror_y else 1.0, 1.0]) @ turn_33
    return turn_33 if np.linalg.det(turn_33) > 0 else None


def is_map(path: Path) -> bool:
    """Whether a picture says where its pixels lie on the ground: the orthophoto in the folder of a flight is no photo."""
    with Image.open(path) as image:
        return image.format == "TIFF" and any(tag in image.tag_v2 for tag in _PLACE_TAGS)


def upright(image_HW3: np.ndarray, K_33: np.ndarray, orientation: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its intrinsics turned by an EXIF orientation, 1 to 8."""
    exchange, mirror_x, mirror_y = _UPRIGHT[orientation]
    fx, fy, cx, cy = K_33[0, 0], K_33[1, 1], K_33[0, 2], K_33[1, 2]
    if exchange:
        image_HW3, fx, fy, cx, cy = image_HW3.swapaxes(0, 1), fy, fx, cy, cx
    height, width = image_HW3.shape[:2]
    if mirror_x:
        image_HW3, cx = image_HW3[:, ::-1], width - cx
    if mirror_y:
        image_HW3, cy = image_HW3[::-1], height - cy
    return np.ascontiguousarray(image_HW3), intrinsics(fx, fy, cx, cy)


def taken_s(path: Path) -> float | None:
    """Seconds since the epoch by EXIF; without a time zone there, as if it were UTC."""
    with Image.open(path) as image:
        exif = image.getexif().get_ifd(_EXIF_IFD)
    try:
        taken = datetime.strptime(str(exif[_TAKEN]).strip("\0 "), "%Y:%m:%d %H:%M:%S")
        offset = datetime.strptime(str(exif[_TAKEN_OFFSET]).strip("\0 "), "%z").tzinfo if _TAKEN_OFFSET in exif else None
        fraction = float(f"0.{str(exif.get(_TAKEN_SUBSECOND, '0')).strip()}")
    except (KeyError, ValueError):
        return None
    return taken.replace(tzinfo=offset or timezone.utc).timestamp() + fraction


@dataclass(frozen=True)
class Source:
    """A file to localise. name: relative to what was asked for."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_sources(asked: Path) -> list[Source]:
    """The photos and videos that a file or folder (with its sub-folders) stands for, by name; hidden ones are none.

    Raises:
        FileNotFoundError: no such file or folder. ValueError: a folder without any.
    """
    if asked.is_file():
        return [Source(asked, asked.name)]
    if not asked.is_dir():
        raise FileNotFoundError(f"no such photo, folder or video: {asked}")
    found = [
        Source(path, path.relative_to(asked).as_posix())
        for path in sorted(asked.rglob("*"))
        if path.is_file()
        and path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(asked).parts)
    ]
    if not found:
        raise ValueError(f"folder {asked} holds no photo or video")
    return found


def upright_size(source: Source) -> tuple[int, int]:
    """Width and height of the photos that a source will give, by its header.

    Raises:
        FileNotFoundError, ValueError: it has none.
    """
    if not source.is_video:
        header = read_header(source.path)
        return (header.height, header.width) if header.is_turned_sideways else (header.width, header.height)
    capture = cv2.VideoCapture(str(source.path))
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    capture.release()
    if min(size) < 1:
        raise ValueError(f"video {source.path} cannot be decoded")
    return size


def frame_count(source: Source, every: int) -> int:
    """How many photos a source will give, as far as its header tells."""
    if not source.is_video:
        return 1
    capture = cv2.VideoCapture(str(source.path))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return max(0, -(-count // every))


def photos_of(source: Source, given: Intrinsics, every: int = 1) -> Iterator[Photo]:
    """The photo of a file, or every so manieth frame of a video.

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or its intrinsics are not known.
    """
    if not source.is_video:
        yield read_photo(source.path, given, source.name)
        return
    capture = cv2.VideoCapture(str(source.path))
    try:
        number = 0
        while capture.grab():
            if number % every == 0:
                good, frame_HW3 = capture.retrieve()
                if not good:
                    raise ValueError(f"video {source.path}: frame {number} cannot be decoded")
                # The container's time of this frame is known once it was grabbed.
                time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                header = ImageHeader(frame_HW3.shape[1], frame_HW3.shape[0], 1)
                image_HW3, camera = undistorted(frame_HW3[..., ::-1], given.camera_of(source.path, header))
                yield Photo(f"{source.name}#{number:06d}", np.ascontiguousarray(image_HW3), camera.K_33, time_s)
            number += 1
        if number == 0:
            raise ValueError(f"video {source.path} cannot be decoded")
    finally:
        capture.release()
