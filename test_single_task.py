#!/usr/bin/env python3
"""Evaluates single-task networks on sections: `python test_single_task.py SCENE --task coord --network_in FOLDER`."""

import logging
import sys

from threads import configure_threads


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from evaluation.options import parse_options
    from evaluation.run import evaluate
    from runs.device import choose_device
    from runs.messages import explained

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options = parse_options(sys.argv[1:], __doc__)
        outcome = evaluate(options, choose_device(options.device))
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        memory = "try --device cpu or a smaller --image_height; finished sections are kept"
        loader = "Try fewer --num_workers; finished sections are kept, and --resume skips them"
        print(f"error: {explained(error, memory=memory, loader=loader)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the reports of finished sections are kept", file=sys.stderr)
        return 130
    if outcome.damaged:
        print(f"error: not evaluated, cannot be read: {', '.join(map(str, outcome.damaged))}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
