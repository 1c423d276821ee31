"""What `localize.py` makes of answers beside its own files: maps, smoothing, robots, the report, the place of a pixel."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datagen.scene import GeoScene
from exports import mavlink, ros
from exports.answer_report import write_answer_report
from exports.footprints import GroundPoint, locate
from exports.mavlink import write_mavlink
from exports.ros import write_ros_bag
from exports.writing import georeference_of, write_all, write_maps
from localization.answer import Answer
from localization.intrinsics import Intrinsics
from localization.photos import Source, frame_count, is_map, photos_of, read_photo, taken_s, upright_size
from localization.smoothing import FEWEST, STAGE, smooth
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


def check_output(options: OutputOptions, has_geodata: bool, sources: Sequence[Source], every: int = 1) -> None:
    """Raises what would go wrong after the work, before it.

    Args:
        sources: what will be localised. every: of a video's frames.
    Raises:
        ValueError: --locate without geodata or of a pixel that no photo has, --smooth of photos without times of their own,
            or an optional package is missing. FileExistsError: the bag is there. PermissionError: a file cannot be written.
    """
    if options.locate is not None and not has_geodata:
        raise ValueError("--locate needs --surface and --ortho: nothing else says where the ground is")
    if options.locate is not None:
        _check_pixel(options.locate, sources)
    if options.smooth:
        _check_times(sources, every)
    if options.ros2 is not None:
        ros.check_installed()
    if options.mavlink is not None:
        mavlink.check_installed()
    if options.ros2 is not None and options.ros2.exists():
        raise FileExistsError(f"already there: {options.ros2}")
    for path in (options.report, options.ros2, options.mavlink):
        if path is not None:
            check_writable(path.parent, path.name)


def _check_pixel(pixel_xy: tuple[float, float], sources: Sequence[Source]) -> None:
    sizes = set()
    for source in sources:
        with suppress(ValueError, OSError):  # what cannot be read is said when its turn comes
            if source.is_video or not is_map(source.path):
                sizes.add(upright_size(source))
    x, y = pixel_xy
    if sizes and not any(0 <= x <= width and 0 <= y <= height for width, height in sizes):
        found = " or ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3])
        raise ValueError(f"--locate {x:g} {y:g}: no photo has this pixel; they have {found} pixels, turned upright")


def _check_times(sources: Sequence[Source], every: int) -> None:
    count = sum(frame_count(source, every) for source in sources)
    if count < FEWEST:
        raise ValueError(f"--smooth makes a track of at least {FEWEST} photos; there are {count}")
    videos = sum(source.is_video for source in sources)
    if videos > 1 or 0 < videos < len(sources):
        raise ValueError("--smooth makes one track: of one video, or of photos")
    times: dict[str, float | None] = {}
    for source in sources if not videos else ():
        with suppress(ValueError, OSError):
            if not is_map(source.path):
                times[source.name] = taken_s(source.path)
    without = [name for name, time_s in times.items() if time_s is None]
    if without:
        raise ValueError(
            f"--smooth needs the time of every photo; {len(without)} have none in their EXIF, such as {without[0]}"
        )
    twice = [time_s for time_s, photos in Counter(times.values()).items() if photos > 1]
    if twice:
        first, second = [name for name, time_s in times.items() if time_s == twice[0]][:2]
        raise ValueError(f"--smooth needs a time of its own for every photo; {first} and {second} have the same")


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
