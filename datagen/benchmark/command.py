"""What the set-up commands in `datasets/` share."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from datagen.benchmark.options import ChunkOptions, SetupOptions
from records.command import exit_status
from records.options import add_options, options_from
from threads import configure_threads


def setup_main(scene: str, script: str, arguments: list[str] | None = None) -> int:
    """`setup_<scene>.py`."""
    from datagen.benchmark.setup import set_up

    def run(options: SetupOptions) -> None:
        set_up(scene, options, options.record_dir or Path(script).resolve().parent)

    return _main(SetupOptions, run, f"Makes the sections of {scene} from the raw data set.", arguments)


def chunk_main(arguments: list[str] | None = None) -> int:
    """`setup_section_split.py`."""
    from datagen.benchmark.chunks import split_section

    return _main(ChunkOptions, split_section, "Makes parts of a section that are contained in each other.", arguments)


def _main(cls: type, run: Callable, description: str, arguments: list[str] | None) -> int:
    """Runs a command; expected errors become one line on stderr and exit code 2, Ctrl-C 130."""
    configure_threads()
    parser = argparse.ArgumentParser(description=description)
    add_options(parser, cls)
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    def work() -> None:
        run(options_from(cls, args))

    return exit_status(work, interrupted="interrupted; the same command goes on where it stopped")
