#!/usr/bin/env python3
"""Evaluates a trained DDLoc on sections: `python eval_ddloc.py SCENE --section test_drone_real`."""

import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from ddloc.command import run_evaluation

    return run_evaluation(__doc__)


if __name__ == "__main__":
    sys.exit(main())
