#!/usr/bin/env python3
"""Evaluates single-task networks on sections: `python test_single_task.py SCENE --task coord --network_in FOLDER`."""

import logging
import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from evaluation.options import parse_options
    from evaluation.run import evaluate
    from records.command import FAILURES, exit_status
    from runs.device import choose_device
    from runs.messages import explained

    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def work() -> None:
        options = parse_options(sys.argv[1:], __doc__)
        outcome = evaluate(options, choose_device(options.device))
        if outcome.damaged:
            raise ValueError(f"not evaluated, cannot be read: {', '.join(map(str, outcome.damaged))}")

    memory = "try --device cpu or a smaller --image_height; finished sections are kept"
    loader = "Try fewer --num_workers; finished sections are kept, and --resume skips them"
    return exit_status(
        work,
        expected=FAILURES,
        explain=lambda error: explained(error, memory=memory, loader=loader),
        interrupted="interrupted; the reports of finished sections are kept",
    )


if __name__ == "__main__":
    sys.exit(main())
