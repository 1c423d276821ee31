"""What photos say about themselves: GNSS position, attitude and focal length from EXIF and DJI's XMP; a prior, no truth.

DJI's gimbal angles are those of `geometry.attitude`: yaw clockwise from true north, pitch -90 straight down.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

_GPS_IFD, _EXIF_IFD = 0x8825, 0x8769
_FOCAL_35MM = 0xA405
# A 35 mm frame's diagonal, which equivalent focal lengths refer to, mm.
_DIAGONAL_35MM = 43.2666
_ATTRIBUTE = re.compile(rb'drone-dji:(\w+)\s*=\s*"([^"]*)"|<drone-dji:(\w+)>\s*([^<]*?)\s*</drone-dji:')
_XMP_BYTES = 1 << 20
_CALIBRATED = "XMP calibrated focal length"


@dataclass(frozen=True)
class PhotoMetadata:
    """Attributes, None where the photo does not say:

    lon_lat_height: degrees and metres (DJI's absolute height; whatever datum the drone uses).
    yaw_pitch_roll_deg: of the gimbal. focal_px: at the stored size. focal_source: where that is from.
    """

    width: int
    height: int
    lon_lat_height: tuple[float, float, float] | None
    yaw_pitch_roll_deg: tuple[float, float, float] | None
    focal_px: float | None
    focal_source: str

    @property
    def calibrated(self) -> bool:
        """Whether the focal length was measured by the maker, not derived from a rounded one."""
        return self.focal_source == _CALIBRATED


def read_metadata(path: Path) -> PhotoMetadata:
    """Reads a photo's EXIF and XMP.

    Raises:
        FileNotFoundError, ValueError: no such file, or not an image.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            width, height = image.size
            exif = image.getexif()
            gps, detail = exif.get_ifd(_GPS_IFD), exif.get_ifd(_EXIF_IFD)
    except FileNotFoundError:
        raise FileNotFoundError(f"photo {path}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"photo {path}: not a readable image ({error})") from None
    xmp = _xmp(path)
    focal_px, source = _focal(xmp, detail, width, height)
    return PhotoMetadata(width, height, _position(gps, xmp), _attitude(xmp), focal_px, source)


def _xmp(path: Path) -> dict[str, str]:
    """DJI's own entries; they stand near the beginning of the file, as attributes or as elements."""
    with path.open("rb") as stream:
        head = stream.read(_XMP_BYTES)
    found = {}
    for name_a, value_a, name_e, value_e in _ATTRIBUTE.findall(head):
        found[(name_a or name_e).decode()] = (value_a or value_e).decode(errors="replace")
    return found


def _number(text) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return value if np.isfinite(value) else None


def _position(gps: dict, xmp: dict[str, str]) -> tuple[float, float, float] | None:
    lon, lat = _degrees(gps.get(4), gps.get(3), "W"), _degrees(gps.get(2), gps.get(1), "S")
    lon = _number(xmp.get("GpsLongitude", xmp.get("GpsLongtitude"))) if lon is None else lon
    lat = _number(xmp.get("GpsLatitude")) if lat is None else lat
    height = _number(xmp.get("AbsoluteAltitude"))
    if height is None and 6 in gps:
        height = _number(gps[6])
        below = gps.get(5) in (1, b"\x01")
        height = -height if below and height is not None else height
    # A drone without a fix writes zeros.
    if None in (lon, lat, height) or (lon == 0 and lat == 0):
        return None
    return lon, lat, height


def _degrees(parts, hemisphere, negative: str) -> float | None:
    try:
        values = [float(part) for part in parts]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if len(values) != 3 or not np.isfinite(values).all():
        return None
    degrees = values[0] + values[1] / 60 + values[2] / 3600
    return -degrees if str(hemisphere).upper().startswith(negative) else degrees


def _attitude(xmp: dict[str, str]) -> tuple[float, float, float] | None:
    angles = tuple(_number(xmp.get(f"Gimbal{axis}Degree")) for axis in ("Yaw", "Pitch", "Roll"))
    if None in angles:
        return None
    yaw, pitch, roll = angles
    # A gimbal that hangs straight down reports 180 degrees of roll on some drones, which is a half turn of yaw.
    return (yaw + 180, pitch, 0.0) if abs(abs(roll) - 180) < 1 and abs(pitch + 90) < 1 else (yaw, pitch, roll)


def _focal(xmp: dict[str, str], detail: dict, width: int, height: int) -> tuple[float | None, str]:
    calibrated = _number(xmp.get("CalibratedFocalLength"))
    # Stated for the whole sensor; its centre tells for what size. A resized photo keeps the entry.
    centre = _number(xmp.get("CalibratedOpticalCenterX"))
    if calibrated and calibrated > 0:
        scale = width / (2 * centre) if centre and centre > 0 else 1.0
        scale = 1.0 if abs(scale - 1) < 0.05 else scale
        return calibrated * scale, _CALIBRATED
    equivalent = _number(detail.get(_FOCAL_35MM))
    if equivalent and equivalent > 0:
        return equivalent / _DIAGONAL_35MM * float(np.hypot(width, height)), "EXIF focal length in 35 mm terms (a guess)"
    return None, ""
