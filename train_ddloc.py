#!/usr/bin/env python3
"""Trains one stage of DDLoc: `python train_ddloc.py STAGE SCENE`, STAGE one of C T A I joint finetune."""

import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from ddloc.command import run_stage

    return run_stage(__doc__)


if __name__ == "__main__":
    sys.exit(main())
