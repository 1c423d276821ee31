"""Coordinate reference systems: which metric frame a scene is worked in, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pyproj
from pyproj.exceptions import CRSError as PyprojError
from rasterio.crs import CRS
from rasterio.errors import CRSError

log = logging.getLogger(__name__)

WGS84 = CRS.from_epsg(4326)
# A local frame in metres, for rasters that declare none.
LOCAL = "local"
_LOCAL_WKT = 'LOCAL_CS["local, metres",UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
# A metre of the map that is off by more than this share of a metre on the ground is no metre. UTM stays within 0.1 % in its
# zone; a country that is mapped in one zone throughout (Norway) reaches 0.4 %, which is said from the second on.
MAX_SCALE_ERROR = 0.005
SAID_SCALE_ERROR = 0.002
_SCALE_STEP_M = 50.0


@dataclass(frozen=True)
class Frame:
    """A metric CRS to work in. Attributes: crs: horizontal, metres. reason: why not the raster's own; empty if it is."""

    crs: CRS
    reason: str = ""


def declared(text: str) -> CRS:
    """The CRS that a user names: an EPSG code, WKT, PROJ string, or `local` for a local frame in metres.

    Raises:
        ValueError: not a CRS.
    """
    try:
        return horizontal(CRS.from_user_input(_LOCAL_WKT if text.lower() == LOCAL else text))
    except (CRSError, PyprojError, ValueError) as error:
        raise ValueError(f"{text!r} is not a CRS; give an EPSG code such as EPSG:2056, or {LOCAL!r} ({error})") from None


def full(crs: CRS) -> pyproj.CRS:
    """The CRS in pyproj, with its vertical part."""
    return pyproj.CRS.from_wkt(crs.to_wkt())


def horizontal(crs: CRS) -> CRS:
    """The horizontal part: heights must never be shifted by a warp."""
    whole = full(crs)
    if not whole.is_compound and len(whole.axis_info) < 3:
        return crs
    flat = whole.to_2d()
    return CRS.from_epsg(flat.to_epsg()) if flat.to_epsg() else CRS.from_wkt(flat.to_wkt())


def is_local(crs: CRS) -> bool:
    """Whether the CRS is an engineering one, tied to no place on Earth."""
    return full(crs).is_engineering


def metres_per_unit(crs: CRS) -> float | None:
    """Metres in a unit of a projected or local CRS; None when it has none (geographic, or not said)."""
    whole = full(crs)
    axes = whole.axis_info
    return float(axes[0].unit_conversion_factor) if (whole.is_projected or whole.is_engineering) and axes else None


def ground_scale(crs: CRS, x: float, y: float) -> tuple[float, float]:
    """Smallest and largest length on the map of a metre on the ground at x, y, over eight directions.

    Measured on the CRS's own ellipsoid, since the spherical formulas of Web Mercator call its distortion at the equator
    none.
    """
    angle_8 = np.arange(8) * np.pi / 8
    xs = x + _SCALE_STEP_M * np.outer([-0.5, 0.5], np.cos(angle_8))
    ys = y + _SCALE_STEP_M * np.outer([-0.5, 0.5], np.sin(angle_8))
    whole = full(crs)
    to_lonlat = pyproj.Transformer.from_crs(whole, whole.geodetic_crs, always_xy=True)
    lon, lat = to_lonlat.transform(xs, ys)
    _, _, ground_m = whole.get_geod().inv(lon[0], lat[0], lon[1], lat[1])
    scale = _SCALE_STEP_M / np.asarray(ground_m)
    return float(scale.min()), float(scale.max())


def working_frame(crs: CRS, centre_xy: tuple[float, float], name: str) -> Frame:
    """The metric frame for a raster around centre_xy: its own CRS when a metre there is one on the ground, else UTM.

    Args:
        crs: horizontal CRS of the raster. centre_xy: in that CRS. name: of the raster, for messages.
    Raises:
        ValueError: a local CRS that is not in metres, or a CRS that leads to no place on Earth.
    """
    unit_m = metres_per_unit(crs)
    if is_local(crs):
        if unit_m is None or abs(unit_m - 1) > 1e-9:
            raise ValueError(
                f"{name}: a local CRS in {'unknown units' if unit_m is None else f'units of {unit_m:.9g} m'}; convert the "
                "positions to metres (gdal_translate -a_ullr) and declare them so (--crs local for files without a CRS)"
            )
        return Frame(crs)
    axes = full(crs).axis_info
    reason = f"positions of the surface model are in {axes[0].unit_name if axes else 'unknown units'}"
    if unit_m is not None and abs(unit_m - 1) <= 1e-9:
        smallest, largest = ground_scale(crs, *centre_xy)
        error = max(largest - 1, 1 - smallest)
        if error <= MAX_SCALE_ERROR:
            if error > SAID_SCALE_ERROR:
                log.warning("%s: a metre on the ground is %.4f in %s; distances are off by that", name, largest, label(crs))
            return Frame(crs)
        reason = f"a metre on the ground is {smallest:.3f} to {largest:.3f} in {label(crs)}"
    lon, lat = pyproj.Transformer.from_crs(full(crs), full(WGS84), always_xy=True).transform(*centre_xy)
    if not np.isfinite([lon, lat]).all():
        raise ValueError(f"{name}: its position {centre_xy} is nowhere on Earth in {label(crs)}")
    return Frame(utm_of(lon, lat), reason)


def utm_of(lon: float, lat: float) -> CRS:
    """The UTM zone (WGS 84) of a longitude and latitude in degrees."""
    zone = int((lon + 180) // 6) % 60 + 1
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + zone)


def label(crs: CRS) -> str:
    """Short name: authority and code, else the CRS's name, else its projection."""
    authority = crs.to_authority()
    if authority:
        return ":".join(authority)
    whole = full(crs)
    if whole.name.lower() not in ("unknown", "unnamed"):
        return whole.name
    return f"an unnamed CRS ({whole.coordinate_operation.method_name if whole.coordinate_operation else whole.type_name})"
