#!/usr/bin/env python3
"""Refines a coord network by the poses that come out: `train_e2e.py SCENE --task coord --network_in WEIGHTS`."""

import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from training.command import run_command
    from training.options import add_refinement_arguments, refinement_options_from

    return run_command(__doc__, add_refinement_arguments, refinement_options_from)


if __name__ == "__main__":
    sys.exit(main())
