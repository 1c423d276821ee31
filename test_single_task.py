#!/usr/bin/env python3
"""Evaluates single-task networks on sections: `python test_single_task.py SCENE --task coord --network_in FOLDER`."""

import logging
import sys

from threads import configure_threads


def explained(error: Exception) -> str:
    """One line for the user; what PyTorch says of memory and of loader processes needs a word of what to do."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, MemoryError) or "out of memory" in lines[0] or "allocate memory" in lines[0]:
        return f"out of memory ({lines[0]}): try --device cpu or a smaller --image_height; finished sections are kept"
    loader = next((line for line in lines if "DataLoader worker" in line), None)
    if loader is not None:
        return f"{loader} Try fewer --num_workers; finished sections are kept, and --resume skips them"
    return lines[-1]


def main() -> int:
    configure_threads()  # before numpy and torch are imported
    from evaluation.options import parse_options
    from evaluation.run import evaluate
    from runs.device import choose_device

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        options = parse_options(sys.argv[1:], __doc__)
        outcome = evaluate(options, choose_device(options.device))
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"error: {explained(error)}", file=sys.stderr)
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
