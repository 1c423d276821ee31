"""The verdict on an answer where no calibration of the weights says better."""

from __future__ import annotations

# The solver's confidence is a probability that the pose is right: from here on more likely right than not.
_OK_CONFIDENCE = 0.5
# Share of the cells that agree with a pose, for solvers that give no confidence.
_OK_INLIER_SHARE = 0.3
# Share of the patches held out that agree with a refined pose, from which on chance is out of the question.
_OK_AGREEMENT = 0.4


def verdict_of(success: bool, confidence: float | None, inlier_share: float) -> str:
    """ok, doubtful or failed, for a pose from scene coordinates."""
    if not success:
        return "failed"
    is_ok = inlier_share >= _OK_INLIER_SHARE if confidence is None else confidence >= _OK_CONFIDENCE
    return "ok" if is_ok else "doubtful"


def verdict_of_refined(confidence: float, agreement: float) -> str:
    """ok or doubtful, for a pose that the map accepted."""
    return "ok" if confidence >= _OK_CONFIDENCE and agreement >= _OK_AGREEMENT else "doubtful"
