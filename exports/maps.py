"""Answers on a map: GeoJSON (RFC 7946) for geographic information systems, KML for Google Earth."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from datagen.scene import GeoScene
from exports.footprints import footprint
from exports.georeference import GeoPose, Georeference
from exports.spread import Spread
from localization.answer import Answer
from records.files import replacing, write_json

log = logging.getLogger(__name__)

# Times before this are seconds of a video, not of an epoch.
_FIRST_EPOCH_S = 1e8
_DEGREE_DIGITS, _METRE_DIGITS = 9, 3
_COLOURS = {"ok": "ff4cb050", "doubtful": "ff20a5ff"}  # KML counts alpha, blue, green, red
_KML = "http://www.opengis.net/kml/2.2"


@dataclass(frozen=True)
class Placed:
    """An answer on the map.

    Attributes:
        pose: on Earth. above_ground_m: height above the surface below, in a hole of it above what the photo shows of it;
            None without one.
        outline_N3: longitude, latitude, height of what it shows of the ground, counter-clockwise; None without geodata.
    """

    answer: Answer
    pose: GeoPose
    above_ground_m: float | None
    outline_N3: np.ndarray | None


def placed(answers: Sequence[Answer], georeference: Georeference, surface: GeoScene | None) -> list[Placed]:
    """The answers that have a pose, in the order given."""
    return [_placed(answer, georeference, surface) for answer in answers if answer.success]


def in_time_order(photos: Sequence[Placed]) -> list[Placed]:
    """The track: by time where every photo has one, else in the order given."""
    if all(photo.answer.time_s is not None for photo in photos):
        return sorted(photos, key=lambda photo: photo.answer.time_s)
    return list(photos)


def write_geojson(photos: Sequence[Placed], georeference: Georeference, path: Path) -> None:
    """Positions, track and footprints as one FeatureCollection, WGS 84 longitude before latitude.

    Positions carry a third coordinate only where heights are known to be above the ellipsoid, as RFC 7946 wants them; the
    height as it is known is a property.
    """
    features = [_feature("Point", _position(photo.pose, georeference), _properties(photo)) for photo in photos]
    features += [
        _feature("Polygon", [_closed_ring(photo.outline_N3)], {"kind": "footprint", "name": photo.answer.name})
        for photo in photos
        if photo.outline_N3 is not None
    ]
    track = in_time_order(photos)
    if len(track) > 1 and _is_narrow([photo.pose.longitude_deg for photo in track], "the track"):
        ends = {"kind": "track", "from": track[0].answer.name, "to": track[-1].answer.name}
        features.append(_feature("LineString", [_position(photo.pose, georeference) for photo in track], ends))
    write_json(path, {"type": "FeatureCollection", "height_datum": georeference.datum, "features": features})


def write_kml(photos: Sequence[Placed], georeference: Georeference, path: Path) -> None:
    """The same for Google Earth, with a camera to look through per photo.

    Heights are shown above the ground where the surface model says how high that is for every photo, which is right whatever
    its vertical datum; else they are taken as above sea level, which is what KML knows.
    """
    above_ground = all(photo.above_ground_m is not None for photo in photos)
    ET.register_namespace("", _KML)
    root = ET.Element(f"{{{_KML}}}kml")
    document = _child(root, "Document")
    _child(document, "name", path.stem)
    _child(document, "description", f"heights: {georeference.datum}")
    for verdict, colour in _COLOURS.items():
        style = _child(document, "Style")
        style.set("id", verdict)
        _child(_child(style, "IconStyle"), "color", colour)
        _child(_child(style, "LineStyle"), "color", colour)
        _child(_child(style, "PolyStyle"), "color", "40" + colour[2:])
    folder = _child(document, "Folder")
    _child(folder, "name", "photos")
    for photo in photos:
        _photo_placemark(folder, photo, above_ground)
    track = in_time_order(photos)
    if len(track) > 1:
        line = _child(_placemark(document, "track", "ok"), "LineString")
        _child(line, "altitudeMode", _mode(above_ground))
        _child(line, "coordinates", " ".join(_coordinates(photo, above_ground) for photo in track))
    outlines = _child(document, "Folder")
    _child(outlines, "name", "footprints")
    for photo in photos:
        if photo.outline_N3 is not None:
            polygon = _child(_placemark(outlines, photo.answer.name, photo.answer.verdict), "Polygon")
            _child(polygon, "altitudeMode", "clampToGround")
            ring = _child(_child(polygon, "outerBoundaryIs"), "LinearRing")
            text = " ".join(f"{lon:.9f},{lat:.9f}" for lon, lat in _closed_ring(photo.outline_N3))
            _child(ring, "coordinates", text)
    ET.indent(root)
    with replacing(path) as temporary:
        ET.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def _placed(answer: Answer, georeference: Georeference, surface: GeoScene | None) -> Placed:
    pose = georeference.pose(answer.world_from_cam_44)
    if surface is None:
        return Placed(answer, pose, None, None)
    x, y, z = answer.world_from_cam_44[:3, 3]
    above_m = float(z - surface.height_at(x, y)[0])
    outline_N3 = footprint(answer, surface)
    if outline_N3 is not None:
        above_m = above_m if np.isfinite(above_m) else float(z - np.median(outline_N3[:, 2]))
        outline_N3 = _counter_clockwise(georeference.lonlat_height(outline_N3))
        if not _is_narrow(outline_N3[:, 0], f"the footprint of {answer.name}"):
            outline_N3 = None
    return Placed(answer, pose, above_m if np.isfinite(above_m) else None, outline_N3)


def _is_narrow(longitude_N: Any, what: str) -> bool:
    """Whether it stays on one side of the antimeridian, where RFC 7946 wants lines and polygons cut."""
    narrow = float(np.ptp(longitude_N)) < 180.0
    if not narrow:
        log.warning("%s crosses the antimeridian and is left out of the map", what)
    return narrow


def _counter_clockwise(outline_N3: np.ndarray) -> np.ndarray:
    """The ring in the direction that RFC 7946 asks of outer ones."""
    x, y = outline_N3[:, 0] - outline_N3[0, 0], outline_N3[:, 1] - outline_N3[0, 1]
    doubled_area = float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
    return outline_N3 if doubled_area > 0 else outline_N3[::-1]


def _closed_ring(outline_N3: np.ndarray) -> list[list[float]]:
    ring = [[round(float(lon), _DEGREE_DIGITS), round(float(lat), _DEGREE_DIGITS)] for lon, lat, _ in outline_N3]
    return [*ring, ring[0]]


def _position(pose: GeoPose, georeference: Georeference) -> list[float]:
    flat = [round(pose.longitude_deg, _DEGREE_DIGITS), round(pose.latitude_deg, _DEGREE_DIGITS)]
    return [*flat, round(pose.height_m, _METRE_DIGITS)] if georeference.ellipsoidal else flat


def _feature(kind: str, coordinates: Any, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def _properties(photo: Placed) -> dict[str, Any]:
    answer, pose, spread = photo.answer, photo.pose, Spread.of(photo.answer.covariance_66)
    return {
        "kind": "photo",
        "name": answer.name,
        "verdict": answer.verdict,
        "confidence": answer.confidence,
        "stage": answer.stage,
        "height_m": round(pose.height_m, _METRE_DIGITS),
        "above_ground_m": photo.above_ground_m and round(photo.above_ground_m, _METRE_DIGITS),
        "yaw_deg": round(pose.yaw_deg, 4),
        "pitch_deg": round(pose.pitch_deg, 4),
        "roll_deg": round(pose.roll_deg, 4),
        "sigma_horizontal_m": spread.horizontal_m,
        "sigma_up_m": spread.up_m,
        "sigma_rotation_deg": spread.rotation_deg,
        "time": _time(answer),
    }


def _time(answer: Answer) -> str | float | None:
    """ISO 8601 of a time since the epoch; seconds since a video's start as they are."""
    if answer.time_s is None or answer.time_s < _FIRST_EPOCH_S:
        return answer.time_s
    return datetime.fromtimestamp(answer.time_s, timezone.utc).isoformat()


def _mode(above_ground: bool) -> str:
    return "relativeToGround" if above_ground else "absolute"


def _altitude(photo: Placed, above_ground: bool) -> float:
    return photo.above_ground_m if above_ground else photo.pose.height_m


def _coordinates(photo: Placed, above_ground: bool) -> str:
    return f"{photo.pose.longitude_deg:.9f},{photo.pose.latitude_deg:.9f},{_altitude(photo, above_ground):.3f}"


def _photo_placemark(folder: ET.Element, photo: Placed, above_ground: bool) -> None:
    answer, pose = photo.answer, photo.pose
    mark = _child(folder, "Placemark")
    _child(mark, "name", answer.name)
    camera = _child(mark, "Camera")
    values = {
        "longitude": pose.longitude_deg, "latitude": pose.latitude_deg, "altitude": _altitude(photo, above_ground),
        # KML's camera looks down at tilt 0 and to the horizon at 90.
        "heading": pose.yaw_deg, "tilt": pose.pitch_deg + 90.0, "roll": pose.roll_deg,
    }  # fmt: skip
    for name, value in values.items():
        _child(camera, name, f"{value:.9f}")
    _child(camera, "altitudeMode", _mode(above_ground))
    time = _time(answer)
    if isinstance(time, str):
        _child(_child(mark, "TimeStamp"), "when", time)
    _child(mark, "styleUrl", f"#{answer.verdict}")
    data = _child(mark, "ExtendedData")
    for name, value in _properties(photo).items():
        if value is not None and name not in ("kind", "name"):
            entry = _child(data, "Data")
            entry.set("name", name)
            _child(entry, "value", str(value))
    point = _child(mark, "Point")
    _child(point, "altitudeMode", _mode(above_ground))
    _child(point, "coordinates", _coordinates(photo, above_ground))


def _placemark(parent: ET.Element, name: str, style: str) -> ET.Element:
    mark = _child(parent, "Placemark")
    _child(mark, "name", name)
    _child(mark, "styleUrl", f"#{style}")
    return mark


def _child(parent: ET.Element, tag: str, text: str | None = None) -> ET.Element:
    element = ET.SubElement(parent, f"{{{_KML}}}{tag}")
    element.text = text
    return element
