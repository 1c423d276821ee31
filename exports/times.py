"""When photos were taken, for formats that want to know it of every one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from localization.answer import Answer

log = logging.getLogger(__name__)


def times_s(answers: Sequence[Answer]) -> list[float]:
    """A time per answer, seconds: the photos' own, or where one has none, one second apart in the order given (said)."""
    known = [answer.time_s for answer in answers if answer.time_s is not None]
    if len(known) == len(answers):
        return known
    missing = len(answers) - len(known)
    log.warning("%d of %d photos have no time: they count as taken one second apart, in order", missing, len(answers))
    return [float(index) for index in range(len(answers))]
