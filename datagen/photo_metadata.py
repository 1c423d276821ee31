"""What photos say about themselves: GNSS position, attitude and focal length from EXIF and DJI's XMP; a prior, no truth.

DJI's gimbal angles are those of `geometry.attitude`: yaw clockwise from true north, pitch -90 straight down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

_GPS_IFD, _EXIF_IFD = 0x8825, 0x8769
_FOCAL_35MM = 0xA405
# A 35 mm frame's diagonal, which equivalent focal lengths refer to, mm.
_DIAGONAL_35MM = 43.2666
_LATITUDE, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE = 2, 4, 5, 6
_HEAD_BYTES = 1 << 20
_ENTRY = re.compile(r"""[\w-]+:(\w+)\s*=\s*["']([^"']*)["']|<[\w-]+:(\w+)>\s*([^<]*?)\s*</""")
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


@dataclass(frozen=True)
class PhotoEntries:
    """A photo's entries as they stand in its file: EXIF's of GPS and of the exposure by tag, XMP's by name, as text.

    width, height: of the stored picture, pixels.
    """

    width: int
    height: int
    gps: Mapping[int, Any]
    exposure: Mapping[int, Any]
    xmp: Mapping[str, str]


def read_entries(path: Path) -> PhotoEntries:
    """Reads a photo's EXIF and XMP; the one place that does.

    Raises:
        FileNotFoundError, ValueError: no such file, or not an image.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            width, height = image.size
            exif = image.getexif()
            gps, exposure = exif.get_ifd(_GPS_IFD), exif.get_ifd(_EXIF_IFD)
    except FileNotFoundError:
        raise FileNotFoundError(f"photo {path}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"photo {path}: not a readable image ({error})") from None
    return PhotoEntries(width, height, gps, exposure, _xmp(path))


def number(value: Any) -> float | None:
    """A finite number of an entry; None for what is none (0/0 is how cameras write "unknown")."""
    try:
        found = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return found if np.isfinite(found) else None


def gps_degrees(gps: Mapping[int, Any], tag: int) -> float | None:
    """Degrees, minutes, seconds of a GPS tag as degrees; negative in the south and the west, which the tag before says."""
    parts = [number(part) for part in gps.get(tag) or ()]
    if len(parts) != 3 or None in parts:
        return None
    degrees = parts[0] + parts[1] / 60 + parts[2] / 3600
    return -degrees if str(gps.get(tag - 1, "")).strip("\0 ").upper() in ("S", "W") else degrees


def lon_lat(entries: PhotoEntries) -> tuple[float, float] | None:
    """WGS 84 longitude and latitude, degrees; None without a fix, for which receivers write zeros."""
    lon, lat = gps_degrees(entries.gps, _LONGITUDE), gps_degrees(entries.gps, _LATITUDE)
    if lon is None or lat is None:
        # GpsLongtitude: as some of DJI's own firmware spells it.
        lon = number(entries.xmp.get("GpsLongitude", entries.xmp.get("GpsLongtitude")))
        lat = number(entries.xmp.get("GpsLatitude"))
    return None if lon is None or lat is None or (lon == 0 and lat == 0) else (lon, lat)


def altitude(entries: PhotoEntries) -> float | None:
    """Metres above what, nobody knows: DJI's absolute height, else that of EXIF, negative below its reference."""
    height = number(entries.xmp.get("AbsoluteAltitude"))
    if height is None and (height := number(entries.gps.get(_ALTITUDE))) is not None:
        return -height if entries.gps.get(_ALTITUDE_REF) in (1, b"\x01") else height
    return height


def attitude(entries: PhotoEntries) -> tuple[float, float, float] | None:
    """Yaw, pitch and roll of the gimbal, degrees."""
    angles = tuple(number(entries.xmp.get(f"Gimbal{axis}Degree")) for axis in ("Yaw", "Pitch", "Roll"))
    if None in angles:
        return None
    yaw, pitch, roll = angles
    # A gimbal that hangs straight down reports 180 degrees of roll on some drones, which is a half turn of yaw.
    return (yaw + 180, pitch, 0.0) if abs(abs(roll) - 180) < 1 and abs(pitch + 90) < 1 else (yaw, pitch, roll)


def read_metadata(path: Path) -> PhotoMetadata:
    """Reads what a photo says of its camera's place, direction and focal length.

    Raises:
        FileNotFoundError, ValueError: no such file, or not an image.
    """
    entries = read_entries(path)
    place, height = lon_lat(entries), altitude(entries)
    position = None if place is None or height is None else (*place, height)
    focal_px, source = _focal(entries)
    return PhotoMetadata(entries.width, entries.height, position, attitude(entries), focal_px, source)


def _xmp(path: Path) -> dict[str, str]:
    """Entries of the XMP packet, wherever it lies in the file, as attributes or as elements of any namespace."""
    content = path.read_bytes()
    start, end = content.find(b"<x:xmpmeta"), content.find(b"</x:xmpmeta>")
    # The element around a packet may be left out; then it stands near the beginning.
    packet = (content[start:end] if 0 <= start < end else content[:_HEAD_BYTES]).decode("utf-8", "replace")
    return {name_a or name_e: value_a or value_e for name_a, value_a, name_e, value_e in _ENTRY.findall(packet)}


def _focal(entries: PhotoEntries) -> tuple[float | None, str]:
    xmp, width, height = entries.xmp, entries.width, entries.height
    calibrated = number(xmp.get("CalibratedFocalLength"))
    # Stated for the whole sensor; its centre tells for what size. A resized photo keeps the entry.
    centre = number(xmp.get("CalibratedOpticalCenterX"))
    if calibrated and calibrated > 0:
        scale = width / (2 * centre) if centre and centre > 0 else 1.0
        scale = 1.0 if abs(scale - 1) < 0.05 else scale
        return calibrated * scale, _CALIBRATED
    equivalent = number(entries.exposure.get(_FOCAL_35MM))
    if equivalent and equivalent > 0:
        return equivalent / _DIAGONAL_35MM * float(np.hypot(width, height)), "EXIF focal length in 35 mm terms (a guess)"
    return None, ""
