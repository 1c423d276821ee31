"""`python -m datagen sections|photos|from_photos|demo|lookalike`: prepared sections from geodata, photos or a demo scene."""

from __future__ import annotations

import argparse
import logging
import signal
import sys

from datagen import photo_command, section_command, survey_command
from records.command import exit_status
from threads import configure_threads


def build_parser(name: str) -> argparse.ArgumentParser:
    """The command's parser; the demo scene and what uses it are only imported when asked for by `name`."""
    parser = argparse.ArgumentParser(prog="python -m datagen", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    section_command.add_arguments(
        commands.add_parser(
            "sections", help="rendered train_sim / val_sim from geodata", description=section_command.__doc__
        )
    )
    photo_command.add_arguments(
        commands.add_parser(
            "photos",
            help="*_drone_real and *_drone_sim from photos with known cameras",
            description=photo_command.__doc__,
        )
    )
    survey_command.add_arguments(
        commands.add_parser(
            "from_photos",
            help="everything from photos and their COLMAP model, or from photos alone",
            description=survey_command.__doc__,
        )
    )
    demo_parser = commands.add_parser("demo", help="the embedded procedural scene")
    if name == "demo":
        from datagen import demo as demo_command

        demo_command.add_arguments(demo_parser)
        demo_parser.set_defaults(run=demo_command.run)
    lookalike_parser = commands.add_parser("lookalike", help="a small raw data set in the published benchmark's form")
    if name == "lookalike":
        from datagen.benchmark import lookalike

        lookalike.add_arguments(lookalike_parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; expected errors become one line on stderr and exit code 2, Ctrl-C 130."""
    configure_threads()
    arguments = sys.argv[1:] if arguments is None else arguments
    args = build_parser(arguments[0] if arguments else "").parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # A terminated run cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return exit_status(lambda: args.run(args), interrupted="interrupted; nothing was left behind")


if __name__ == "__main__":
    sys.exit(main())
