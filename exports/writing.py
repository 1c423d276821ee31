"""All files of a localisation at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj

from datagen.scene import GeoScene
from exports.colmap import write_colmap
from exports.georeference import Georeference
from exports.maps import placed, write_geojson, write_kml
from exports.tables import write_csv
from localization.answer import Answer
from localization.writing import write_answers

log = logging.getLogger(__name__)


def write_all(
    answers: Sequence[Answer], frame: Mapping[str, Any] | None, folder: Path, surface: GeoScene | None = None
) -> None:
    """Writes what localisation writes (answers.json, answers.csv, poses/*.txt) and what `write_maps` does; see there."""
    _check(answers, frame, surface)
    write_answers(answers, frame, {}, folder)
    write_maps(answers, frame, folder, surface)


def write_maps(
    answers: Sequence[Answer], frame: Mapping[str, Any] | None, folder: Path, surface: GeoScene | None = None
) -> None:
    """Writes cameras.txt and images.txt, geographic.csv, answers.geojson and answers.kml.

    Photos without a pose stand in the table only. The maps need a frame with a CRS; footprints also need the geodata. One
    line says what heights are above, or why there is no map.

    Args:
        frame: of the scene, as in scene.json and the record of a run.
        folder: made when absent; files in it are replaced.
        surface: the geodata in that frame.
    Raises:
        ValueError: no answer, or geodata in another frame than the answers.
        OSError: the folder cannot be written.
    """
    _check(answers, frame, surface)
    georeference = georeference_of(frame, surface)
    folder.mkdir(parents=True, exist_ok=True)
    write_colmap(answers, folder)
    write_csv(answers, georeference, folder / "geographic.csv")
    if georeference is not None:
        photos = placed(answers, georeference, surface)
        write_geojson(photos, georeference, folder / "answers.geojson")
        write_kml(photos, georeference, folder / "answers.kml")


def _check(answers: Sequence[Answer], frame: Mapping[str, Any] | None, surface: GeoScene | None) -> None:
    if not answers:
        raise ValueError("no photo was localised: there is nothing to write")
    if surface is not None:
        check_same_frame(frame, surface)


def check_same_frame(frame: Mapping[str, Any] | None, surface: GeoScene) -> None:
    """Raises ValueError unless the geodata were opened in the frame of the answers."""
    if not frame:
        return
    origin_3 = frame.get("origin_xyz")
    if origin_3 is not None and not np.allclose(origin_3, surface.origin_xyz, atol=1e-6):
        raise ValueError(f"the answers have the origin {list(origin_3)}, the geodata {list(surface.origin_xyz)}")
    if frame.get("crs"):
        ours, theirs = pyproj.CRS.from_user_input(frame["crs"]), pyproj.CRS.from_wkt(surface.crs.to_wkt())
        # WKT texts of one CRS differ between versions of PROJ.
        if not ours.to_2d().equals(theirs.to_2d(), ignore_axis_order=True):
            raise ValueError(f"the answers are in {ours.name}, the geodata in {theirs.name}")


def georeference_of(
    frame: Mapping[str, Any] | None, surface: GeoScene | None, *, quiet: bool = False
) -> Georeference | None:
    """Where answers lie on Earth; None where nothing says. A line says which, unless it was said before."""
    level = logging.DEBUG if quiet else logging.INFO
    try:
        georeference = Georeference(frame or {}) if surface is None else Georeference.of_surface(surface)
    except ValueError as error:
        log.log(level, "no longitude and latitude, GeoJSON and KML: %s", error)
        return None
    log.log(level, "longitude and latitude in WGS 84, yaw from true north; heights: %s", georeference.datum)
    return georeference
