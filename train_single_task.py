#!/usr/bin/env python3
"""Trains one single-task network: `python train_single_task.py SCENE --task coord`."""

import argparse
import logging
import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from training.loop import TrainingInterrupted, train
    from training.options import add_arguments, options_from

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    try:
        run = train(options_from(parser.parse_args()))
    except TrainingInterrupted as stop:
        print(stop, file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
        return 2
    print(f"weights: {run.checkpoints}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
