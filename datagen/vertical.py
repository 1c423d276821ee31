"""Vertical units and datums: what a height in a file means in metres, and above what."""

from __future__ import annotations

from dataclasses import dataclass

import pyproj
import rasterio
from rasterio.crs import CRS

from datagen import frames

_US_FOOT, _FOOT = 1200 / 3937, 0.3048
_METRES = {
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(
        ("us survey foot", "us survey feet", "us-ft", "us_ft", "usft", "ftus", "foot_us", "survey foot", "us foot"), _US_FOOT
    ),
    **dict.fromkeys(("ft", "foot", "feet", "international foot", "ift"), _FOOT),
    **dict.fromkeys(("dm", "decimetre", "decimeter"), 0.1),
    **dict.fromkeys(("cm", "centimetre", "centimeter", "centimetres", "centimeters"), 0.01),
    **dict.fromkeys(("mm", "millimetre", "millimeter", "millimetres", "millimeters"), 0.001),
    **dict.fromkeys(("km", "kilometre", "kilometer"), 1000.0),
}
_UNSAID = {"", "unknown", "unitless", "none", "1"}
# What a user may say with --height_unit.
UNITS = {"metre": 1.0, "foot": _FOOT, "us-foot": _US_FOOT, "decimetre": 0.1, "centimetre": 0.01, "millimetre": 0.001}
# The two feet differ by 2e-6, and tags confuse them.
_SAME_UNIT = 1e-5


@dataclass(frozen=True)
class Vertical:
    """Attributes: metres_per_unit. unit: its name and where it comes from. datum: what heights are above; "" when unsaid.

    ellipsoidal: None when the datum is not declared.
    """

    metres_per_unit: float
    unit: str
    datum: str
    ellipsoidal: bool | None

    def __str__(self) -> str:
        kind = {True: "ellipsoidal", False: "above the geoid or a levelling datum", None: ""}[self.ellipsoidal]
        return f"heights in {self.unit}, " + (f"{self.datum} ({kind})" if self.datum else "vertical datum not declared")


def vertical_of(dataset: rasterio.DatasetReader, crs: CRS, unit: str | None, name: str) -> Vertical:
    """Unit and datum of a surface model's heights: as given, else its band's unit tag and the vertical part of its CRS.

    Args:
        crs: with its vertical part. unit: a key of UNITS, overrules the file. name: for messages.
    Raises:
        ValueError: an unknown unit, tags that contradict each other, depths, or positions in feet while the heights
            declare no unit.
    """
    axis, datum, ellipsoidal = _vertical_axis(frames.full(crs))
    if axis is not None and axis.direction == "down":
        raise ValueError(f"{name}: its vertical CRS {datum} counts downwards (depths); convert it to heights")
    if unit is not None:
        return Vertical(UNITS[unit], f"{unit} (as given)", datum, ellipsoidal)
    tag = (dataset.units[0] or "").strip()
    tagged_m = None if tag.lower() in _UNSAID else _METRES.get(tag.lower())
    if tagged_m is None and tag.lower() not in _UNSAID:
        raise ValueError(f"{name}: unknown height unit {tag!r}; say what it is with --height_unit ({', '.join(UNITS)})")
    axis_m = None if axis is None else axis.unit_conversion_factor
    if tagged_m is not None and axis_m is not None and abs(tagged_m / axis_m - 1) > _SAME_UNIT:
        raise ValueError(
            f"{name}: its band says heights in {tag}, its CRS in {axis.unit_name}; decide with --height_unit "
            f"({', '.join(UNITS)})"
        )
    if axis_m is not None:
        return Vertical(axis_m, f"{axis.unit_name} (vertical CRS)", datum, ellipsoidal)
    if tagged_m is not None:
        return Vertical(tagged_m, f"{tag} (band unit)", datum, ellipsoidal)
    position_m = frames.metres_per_unit(frames.horizontal(crs))
    if position_m is not None and abs(position_m - 1) > 1e-9:
        raise ValueError(
            f"{name}: positions in units of {position_m:.9g} m and heights in a unit that is not declared; "
            f"say it with --height_unit ({', '.join(UNITS)})"
        )
    return Vertical(1.0, "metres (assumed)", datum, ellipsoidal)


def _vertical_axis(crs: pyproj.CRS):
    """(axis, name of the datum, ellipsoidal) of the vertical part; (None, "", None) without one."""
    if crs.is_compound:
        part = next((part for part in crs.sub_crs_list if part.is_vertical and len(part.axis_info) == 1), None)
        if part is not None:
            return part.axis_info[0], part.name, "ellips" in part.name.lower()
    if len(crs.axis_info) == 3:
        return crs.axis_info[2], crs.name, True
    return None, "", None
