"""What the training commands share: from the command line to the exit status."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from records.command import FAILURES, exit_status
from runs.messages import explained
from training.loop import TrainingInterrupted, train
from training.options import TrainingOptions
from training.ranks import PeerStopped, process_number

_MEMORY_ADVICE = "start again with a smaller --batch_size or --image_height and another --session"
_LOADER_ADVICE = "The state is saved: continue with --auto_resume, with fewer --num_workers if memory was short"


def run_command(
    description: str | None,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    options_from: Callable[[argparse.Namespace], TrainingOptions],
) -> int:
    """Parses, trains, and explains what went wrong in one line; 0 done, 2 refused or failed, 130 interrupted."""
    # Of several processes one speaks; the others only when something is wrong with them.
    logging.basicConfig(level=logging.INFO if process_number() == 0 else logging.ERROR, format="%(message)s")
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser)
    args = parser.parse_args()

    def work() -> int:
        try:
            run = train(options_from(args))
        except PeerStopped as stop:  # another process says why
            return 130 if isinstance(stop.__cause__, TrainingInterrupted) else 2
        if process_number() == 0:
            print(f"weights: {run.checkpoints}")
        return 0

    try:
        return exit_status(
            work,
            expected=FAILURES,
            explain=lambda error: explained(error, memory=_MEMORY_ADVICE, loader=_LOADER_ADVICE),
        )
    except TrainingInterrupted as stop:
        print(stop, file=sys.stderr)
        return 130
