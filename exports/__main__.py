"""Turns the poses.json of a localisation into logs for robots: `python -m exports poses.json --ros2 BAG --mavlink LOG`."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from exports.georeference import UNKNOWN_DATUM, Georeference
from exports.mavlink import write_mavlink
from exports.ros import write_ros_bag
from exports.tables import read_answers_json
from records.options import add_options, option, options_from


@dataclass(frozen=True)
class ConversionOptions:
    """One conversion; the fields are the flags."""

    poses: Path = option(positional=True, help="poses.json, as localisation writes it")
    ros2: Path | None = option(None, metavar="FOLDER", help="ROS 2 bag to write (optional package rosbags)")
    mavlink: Path | None = option(None, metavar="FILE", help="MAVLink log to write (optional package pymavlink)")


def convert(options: ConversionOptions) -> None:
    """Writes what was asked for.

    Raises:
        ValueError, OSError: nothing was asked for, a bad file, a missing package; a message for the user.
    """
    if options.ros2 is None and options.mavlink is None:
        raise ValueError("say what to write: --ros2 FOLDER, --mavlink FILE, or both")
    content = read_answers_json(options.poses)
    georeference = None
    try:
        georeference = Georeference(
            content.frame or {}, datum=content.datum or UNKNOWN_DATUM, ellipsoidal=content.ellipsoidal
        )
    except ValueError as error:
        logging.info("local poses only: %s", error)
    if options.ros2 is not None:
        write_ros_bag(content.answers, georeference, options.ros2)
    if options.mavlink is not None:
        write_mavlink(content.answers, georeference, options.mavlink)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m exports", description=__doc__)
    add_options(parser, ConversionOptions)
    try:
        convert(options_from(ConversionOptions, parser.parse_args()))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
