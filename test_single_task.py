#!/usr/bin/env python3
"""Evaluates single-task networks on sections: `python test_single_task.py SCENE --task coord --network_in FOLDER`."""

import logging
import sys


def main() -> int:
    import torch

    from evaluation.options import parse_options
    from evaluation.run import evaluate
    from training.device import choose_device

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options = parse_options(sys.argv[1:], __doc__)
        outcome = evaluate(options, choose_device(options.device))
    except (ValueError, OSError) as error:
        print(f"error: {(str(error).strip().splitlines() or [type(error).__name__])[-1]}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
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
