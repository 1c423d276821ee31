#!/usr/bin/env python3
"""Trains one single-task network: `python train_single_task.py SCENE --task coord`."""

import argparse
import logging
import sys


def main() -> int:
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
    except (ValueError, OSError, FloatingPointError, RuntimeError, MemoryError) as error:
        print(f"error: {explained(error)}", file=sys.stderr)
        return 2
    print(f"weights: {run.checkpoints}")
    return 0


def explained(error: Exception) -> str:
    """One line for the user; what PyTorch says of memory and of loader processes needs a word of what to do."""
    text = next((line for line in reversed(str(error).strip().splitlines()) if line.strip()), type(error).__name__)
    first = str(error).strip().splitlines()[0] if str(error).strip() else text
    if isinstance(error, MemoryError) or "out of memory" in first or "allocate memory" in first:
        return f"out of memory ({first}): start again with a smaller --batch_size or --image_height and another --session"
    if "DataLoader worker" in str(error):
        reason = next(line for line in str(error).splitlines() if "DataLoader worker" in line)
        return f"{reason.strip()} The state is saved: continue with --auto_resume, with fewer --num_workers if memory was short"
    return text


if __name__ == "__main__":
    sys.exit(main())
