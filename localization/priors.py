"""What a photo's file says of its camera: GNSS, gimbal, time; and how that becomes a prior of the solver.

EXIF: GPS latitude, longitude, altitude, and the time. XMP of DJI and of others that write the same names: gimbal attitude,
heights, RTK deviations. Of the attitude only the direction of gravity is used: it needs no north, and magnetometers on
aircraft are off by many degrees. GNSS altitudes are above the ellipsoid or above sea level, which no file says for sure and
which differ by up to 100 m: they are used only when a deviation is given for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyproj

import dsacstar
from datagen.photo_metadata import altitude, attitude, lon_lat, number, read_entries
from datagen.scene import GeoScene
from geometry.attitude import enu_from_camera
from records.options import option, positive

_GPS_TIME, _GPS_DATE = 7, 29
_TIME_TAKEN, _TIME_OFFSET, _SUBSECONDS = 0x9003, 0x9011, 0x9291
# "Nothing is known" for the solver, which wants one prior per image of a batch: metres, degrees.
_NO_POSITION_M, _NO_GRAVITY_DEG = 1e6, 1e5


@dataclass(frozen=True)
class PhotoFacts:
    """What a photo's file says; None where it says nothing.

    Attributes:
        longitude_deg, latitude_deg: WGS 84. altitude_m: above what, nobody knows.
        rtk_sigma_m: deviation of the horizontal position, of receivers that give one.
        pitch_deg, roll_deg: of the gimbal; -90 looks straight down. yaw_deg: its heading, for people only.
        above_take_off_m: height above the point of take-off.
        time_s: seconds since the epoch; of the receiver where it says, else of the camera's clock, taken for UTC.
    """

    longitude_deg: float | None = None
    latitude_deg: float | None = None
    altitude_m: float | None = None
    rtk_sigma_m: float | None = None
    yaw_deg: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None
    above_take_off_m: float | None = None
    time_s: float | None = None


@dataclass(frozen=True)
class PriorOptions:
    """Which of a photo's facts are believed, and how far; the fields are the flags."""

    gnss_sigma: float | None = option(
        None,
        check=positive,
        metavar="M",
        group="priors from the photos' files (default: none)",
        help="use the GNSS position with this standard deviation east and north; smaller ones of RTK receivers win",
    )
    altitude_sigma: float | None = option(
        None, check=positive, metavar="M", help="use the GNSS altitude too, as a height of the surface model's datum"
    )
    gravity_sigma: float | None = option(
        None, check=positive, metavar="DEG", help="use the gimbal's pitch and roll with this standard deviation"
    )
    height_above_ground: tuple[float, float] | None = option(
        None,
        check=positive,
        metavar=("M", "SIGMA"),
        help="the height flown above the ground below, and its standard deviation; needs geodata and GNSS",
    )

    @property
    def wanted(self) -> bool:
        """Whether any of them is asked for."""
        return any(value is not None for value in vars(self).values())


def read_facts(photo: Path) -> PhotoFacts:
    """The facts of a photo's EXIF and XMP.

    Raises:
        FileNotFoundError, ValueError: no such file, or no image; names it.
    """
    entries = read_entries(photo)
    longitude, latitude = lon_lat(entries) or (None, None)
    yaw, pitch, roll = attitude(entries) or (None, None, None)
    deviations = [number(entries.xmp.get(name)) for name in ("RtkStdLat", "RtkStdLon")]
    return PhotoFacts(
        longitude, latitude, altitude(entries), max(deviations) if all(deviations) else None, yaw, pitch, roll,
        number(entries.xmp.get("RelativeAltitude")), _time(entries.gps, entries.exposure),
    )  # fmt: skip


def priors_of(
    facts: Sequence[PhotoFacts], frame: Mapping[str, Any] | None, options: PriorOptions, surface: GeoScene | None = None
) -> dsacstar.Priors | None:
    """The solver's priors of a batch of photos; None when nothing was asked for or no photo says anything.

    Args:
        frame: of the scene, with `crs` and `origin_xyz`; needed for positions.
        surface: the geodata in that frame; needed for heights above ground.
    Raises:
        ValueError: what was asked for needs a frame with a CRS, or the geodata.
    """
    position = _positions(facts, frame, options)
    height = _heights(facts, frame, options, surface)
    gravity = _gravity(facts, options)
    if position is None and height is None and gravity is None:
        return None
    return dsacstar.Priors(position=position, gravity=gravity, height=height)


def _positions(
    facts: Sequence[PhotoFacts], frame: Mapping[str, Any] | None, options: PriorOptions
) -> tuple[np.ndarray, np.ndarray] | None:
    """(camera centres [B, 3], covariances [B, 3, 3]); None without a GNSS position."""
    if options.gnss_sigma is None and options.altitude_sigma is None:
        return None
    xy_B2 = _local_xy(facts, frame)
    mean_B3, sigma_B3 = np.zeros((len(facts), 3)), np.full((len(facts), 3), _NO_POSITION_M)
    for index, fact in enumerate(facts):
        if options.gnss_sigma is not None and np.isfinite(xy_B2[index]).all():
            mean_B3[index, :2] = xy_B2[index]
            rtk_m = math.inf if fact.rtk_sigma_m is None else fact.rtk_sigma_m
            sigma_B3[index, :2] = min(options.gnss_sigma, rtk_m)
        if options.altitude_sigma is not None and fact.altitude_m is not None:
            mean_B3[index, 2] = fact.altitude_m - frame["origin_xyz"][2]
            sigma_B3[index, 2] = options.altitude_sigma
    if (sigma_B3 == _NO_POSITION_M).all():
        return None
    return mean_B3, np.stack([np.diag(sigma_3**2) for sigma_3 in sigma_B3])


def _local_xy(facts: Sequence[PhotoFacts], frame: Mapping[str, Any] | None) -> np.ndarray:
    """Local x, y [B, 2] of the GNSS positions; NaN without one."""
    if not frame or not frame.get("crs") or pyproj.CRS.from_user_input(frame["crs"]).is_engineering:
        raise ValueError("GNSS positions need a scene with a CRS; this one is in a local frame or says none")
    crs = pyproj.CRS.from_user_input(frame["crs"]).to_2d()
    to_local = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    lonlat_B2 = np.array(
        [(math.nan, math.nan) if f.longitude_deg is None else (f.longitude_deg, f.latitude_deg) for f in facts]
    ).reshape(-1, 2)
    xy_B2 = np.stack(to_local.transform(lonlat_B2[:, 0], lonlat_B2[:, 1]), 1) - np.asarray(frame["origin_xyz"])[:2]
    return np.where(np.isfinite(xy_B2), xy_B2, math.nan)


def _heights(
    facts: Sequence[PhotoFacts], frame: Mapping[str, Any] | None, options: PriorOptions, surface: GeoScene | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """(z [B], standard deviation [B]) from the height flown above the ground below."""
    if options.height_above_ground is None:
        return None
    if surface is None:
        raise ValueError("--height_above_ground needs the geodata: nothing else says where the ground is")
    above_m, sigma_m = options.height_above_ground
    xy_B2 = _local_xy(facts, frame)
    ground_B = surface.height_at(*np.nan_to_num(xy_B2, nan=1e9).T)
    known_B = np.isfinite(ground_B)
    if not known_B.any():
        return None
    return np.where(known_B, ground_B + above_m, 0.0), np.where(known_B, sigma_m, _NO_POSITION_M)


def _gravity(facts: Sequence[PhotoFacts], options: PriorOptions) -> tuple[np.ndarray, np.ndarray] | None:
    """(direction of gravity in camera axes [B, 3], standard deviation in degrees [B]); None without a gimbal."""
    if options.gravity_sigma is None:
        return None
    known_B = np.array([fact.pitch_deg is not None and fact.roll_deg is not None for fact in facts])
    if not known_B.any():
        return None
    down_B3 = np.tile([0.0, 1.0, 0.0], (len(facts), 1))
    for index in np.flatnonzero(known_B):
        R_33 = enu_from_camera(0.0, facts[index].pitch_deg, facts[index].roll_deg)
        down_B3[index] = R_33.T @ [0.0, 0.0, -1.0]
    return down_B3, np.where(known_B, options.gravity_sigma, _NO_GRAVITY_DEG)


def _time(gps: Mapping[int, Any], details: Mapping[int, Any]) -> float | None:
    """Seconds since the epoch: the receiver's UTC, else the camera's clock with its offset, else that clock as UTC."""
    clock = [number(part) for part in gps.get(_GPS_TIME, ())]
    try:
        if len(clock) == 3 and None not in clock and gps.get(_GPS_DATE):
            day = datetime.strptime(str(gps[_GPS_DATE]).strip("\0 "), "%Y:%m:%d").replace(tzinfo=timezone.utc)
            return day.timestamp() + 3600 * clock[0] + 60 * clock[1] + clock[2]
        text, offset = str(details[_TIME_TAKEN]).strip("\0 "), str(details.get(_TIME_OFFSET, "+00:00")).strip("\0 ")
        taken = datetime.strptime(f"{text} {offset or '+00:00'}", "%Y:%m:%d %H:%M:%S %z")
        fraction = str(details.get(_SUBSECONDS, "")).strip("\0 ")
        return taken.timestamp() + (float(f"0.{fraction}") if fraction.isdigit() else 0.0)
    except (KeyError, ValueError):
        return None
