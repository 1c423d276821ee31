"""Turns the answers.json of a localisation into logs for robots: `python -m exports answers.json --ros2 BAG`."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from exports.mavlink import write_mavlink
from exports.ros import write_ros_bag
from exports.tables import read_answers
from exports.writing import georeference_of
from records.command import exit_status
from records.options import add_options, option, options_from


@dataclass(frozen=True)
class ConversionOptions:
    """One conversion; the fields are the flags."""

    answers: Path = option(positional=True, help="answers.json, as localisation writes it")
    ros2: Path | None = option(None, metavar="FOLDER", help="ROS 2 bag to write (optional package rosbags)")
    mavlink: Path | None = option(None, metavar="FILE", help="MAVLink log to write (optional package pymavlink)")


def convert(options: ConversionOptions) -> None:
    """Writes what was asked for.

    Raises:
        ValueError, OSError: nothing was asked for, a bad file, a missing package; a message for the user.
    """
    if options.ros2 is None and options.mavlink is None:
        raise ValueError("say what to write: --ros2 FOLDER, --mavlink FILE, or both")
    answers, frame = read_answers(options.answers)
    georeference = georeference_of(frame, None)
    if options.ros2 is not None:
        write_ros_bag(answers, georeference, options.ros2)
    if options.mavlink is not None:
        write_mavlink(answers, georeference, options.mavlink)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="python -m exports", description=__doc__)
    add_options(parser, ConversionOptions)
    args = parser.parse_args()
    return exit_status(lambda: convert(options_from(ConversionOptions, args)))


if __name__ == "__main__":
    sys.exit(main())
