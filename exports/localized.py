"""What `localize.py` makes of answers beside its own files: maps, smoothing, robots, the report, the place of a pixel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datagen.scene import GeoScene
from exports.answer_report import write_answer_report
from exports.footprints import GroundPoint, locate
from exports.mavlink import write_mavlink
from exports.ros import write_ros_bag
from exports.writing import georeference_of, write_all, write_maps
from localization.answer import Answer
from localization.intrinsics import Intrinsics
from localization.photos import Source, photos_of, read_photo
from localization.smoothing import STAGE, smooth
from records.files import check_writable
from records.options import option

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OutputOptions:
    """What to write beside the answers; the fields are the flags."""

    smooth: bool = option(
        False, group="what else to make of the answers", help="one track of photos in time order, in DIR/smoothed"
    )
    locate: tuple[float, float] | None = option(
        None,
        metavar=("X", "Y"),
        help="say the place of this pixel (from the upper left) of every photo; needs geodata",
    )
    report: Path | None = option(None, metavar="HTML", help="one self-contained page with a panel per photo")
    ros2: Path | None = option(None, metavar="FOLDER", help="a ROS 2 bag (optional package rosbags)")
    mavlink: Path | None = option(None, metavar="FILE", help="a MAVLink log (optional package pymavlink)")


def check_output(options: OutputOptions, has_geodata: bool) -> None:
    """Raises what would go wrong after the work, before it.

    Raises:
        ValueError: --locate without geodata. FileExistsError: the bag is there. PermissionError: a file cannot be written.
    """
    if options.locate is not None and not has_geodata:
        raise ValueError("--locate needs --surface and --ortho: nothing else says where the ground is")
    if options.ros2 is not None and options.ros2.exists():
        raise FileExistsError(f"already there: {options.ros2}")
    for path in (options.report, options.ros2, options.mavlink):
        if path is not None:
            check_writable(path.parent, path.name)


def write_outputs(
    answers: Sequence[Answer],
    frame: Mapping[str, Any] | None,
    folder: Path,
    options: OutputOptions,
    *,
    surface: GeoScene | None,
    picture_of: Callable[[Answer], np.ndarray],
    title: str,
) -> list[Answer]:
    """Writes maps, tables and what was asked for beside what localisation wrote; smoothed answers into `smoothed/` there.

    Returns:
        the answers that all of it is about: smoothed ones if asked.

    Args:
        picture_of: the photo of an answer, see `exports.answer_report.write_answer_report`.
    """
    if options.smooth:
        answers = smooth(answers)
        if not any(answer.stage == STAGE for answer in answers):
            log.warning("nothing was smoothed: fewer than four photos have a pose with a known covariance")
        write_all(answers, frame, folder / "smoothed", surface)
    else:
        write_maps(answers, frame, folder, surface)
    georeference = georeference_of(frame, surface, quiet=True)
    if options.ros2 is not None:
        write_ros_bag(answers, georeference, options.ros2)
    if options.mavlink is not None:
        write_mavlink(answers, georeference, options.mavlink)
    if options.report is not None:
        write_answer_report(answers, picture_of, frame, options.report, title=title, surface=surface)
        log.info("report: %s", options.report)
    if options.locate is not None:
        for answer in answers:
            log.info(place_of(answer, options.locate, surface))
    return list(answers)


def photo_of(answer: Answer, asked: Path, given: Intrinsics) -> np.ndarray:
    """The photo of an answer again, uint8 RGB, upright and without distortion.

    Args:
        asked: the file or folder that was localised. given: the intrinsics that it was localised with.
    """
    name, _, number = answer.name.rpartition("#")
    source = Source(asked if asked.is_file() else asked / (name or answer.name), name or answer.name)
    if name and source.is_video:
        frames = photos_of(source, given, max(int(number), 1))
        return next(frame.image_HW3 for frame in frames if frame.name == answer.name)
    return read_photo(asked if asked.is_file() else asked / answer.name, given).image_HW3


def place_of(answer: Answer, pixel_xy: tuple[float, float], surface: GeoScene) -> str:
    """The place of a pixel as a line of text, or why it has none."""
    try:
        found = locate(answer, pixel_xy, surface)
    except ValueError as error:
        return str(error)
    return f"{answer.name} ({pixel_xy[0]:g}, {pixel_xy[1]:g}): {_described(found)}"


def _described(found: GroundPoint) -> str:
    x, y, z = found.world_3
    place = f"x {x:.2f}, y {y:.2f}, z {z:.2f} m"
    if found.longitude_deg is not None:
        geographic = f"longitude {found.longitude_deg:.7f}, latitude {found.latitude_deg:.7f}, height {found.height_m:.2f} m"
        place = f"{geographic} ({place})"
    sigma = "" if found.sigma_m is None else f", within {found.sigma_m:.3f} m (one standard deviation, by the pose alone)"
    return f"{place}, {found.distance_m:.1f} m away{sigma}"
