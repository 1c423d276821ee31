"""A loss that is not finite: the run returns to its last good state and passes the step over, a few times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from training.state import Position

# A run returns to its last good state this often; then it is an error.
MOST_TIMES = 3


class NotFinite(ArithmeticError):
    """The loss of a step is NaN or infinite.

    Attributes:
        images_seen: images before that step. stems: the images of the step.
    """

    def __init__(self, images_seen: int, stems: tuple[str, ...]):
        super().__init__(f"the loss is not finite after {images_seen} images, at {', '.join(stems)}")
        self.images_seen, self.stems = images_seen, stems


def after_failure(
    position: Position, failure: NotFinite, last_step: tuple[int, tuple[str, ...]], *, finite_weights: bool, state: Path
) -> Position:
    """The position of a failure with what it adds to the steps that are passed over; where to go on, the state says.

    Args:
        last_step: images before the last step that was made, and its images.
        finite_weights: whether the weights still are; if not, they were spoilt by that step, whose loss still was finite.
        state: the file of the last good state, for the message.
    Raises:
        FloatingPointError: it has happened too often.
    """
    failures = position.failures + 1
    if failures > MOST_TIMES:
        raise FloatingPointError(
            f"{failure}; the training went back {MOST_TIMES} times already. Lower --learningrate, or look at these images. "
            f"The last good state is kept in {state}"
        )
    steps = {failure.images_seen} if finite_weights else {failure.images_seen, last_step[0]}
    return replace(position, passed_over=tuple(sorted({*position.passed_over, *steps})), failures=failures)
