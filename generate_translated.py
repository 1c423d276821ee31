#!/usr/bin/env python3
"""Translates photos by a trained DDLoc: `python generate_translated.py SCENE`."""

import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from ddloc.command import run_translation

    return run_translation(__doc__)


if __name__ == "__main__":
    sys.exit(main())
