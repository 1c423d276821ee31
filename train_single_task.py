#!/usr/bin/env python3
"""Trains one single-task network: `python train_single_task.py SCENE --task coord`."""

import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from training.command import run_command
    from training.options import add_arguments, options_from

    return run_command(__doc__, add_arguments, options_from)


if __name__ == "__main__":
    sys.exit(main())
