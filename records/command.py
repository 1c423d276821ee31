"""From a command's work to its exit status: what may be expected to go wrong is said in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable

# What the rooms raise with a message for the user.
REFUSALS: tuple[type[Exception], ...] = (ValueError, OSError)
# Beside these, what computing may end in; `runs.messages.explained` turns it into advice.
FAILURES: tuple[type[Exception], ...] = (*REFUSALS, FloatingPointError, RuntimeError, MemoryError)


def one_line(error: Exception) -> str:
    """The message; of the system's own errors the file and the reason, without their number."""
    named = isinstance(error, OSError) and error.strerror and error.filename
    return f"{error.filename}: {error.strerror}" if named else str(error)


def exit_status(
    work: Callable[[], int | None],
    *,
    expected: tuple[type[Exception], ...] = REFUSALS,
    explain: Callable[[Exception], str] = one_line,
    interrupted: str = "interrupted",
) -> int:
    """Works, and returns the status to exit with: the work's own (nothing is 0), 2 refused or failed, 130 interrupted.

    Errors that are not expected are faults of the program and keep their traceback.
    """
    try:
        return work() or 0
    except expected as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
