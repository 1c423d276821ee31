"""What the map made of estimated poses, in figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics import Spread
from localization.refinement import Refinement


@dataclass(frozen=True)
class RefinedPose:
    """A refinement with its errors, which are those of the coarse pose where it was refused."""

    refinement: Refinement
    translation_m: float
    rotation_deg: float

    def row(self) -> dict[str, object]:
        """Columns of the CSV."""
        of = self.refinement
        figures = {
            "refined_translation_error_m": self.translation_m, "refined_rotation_error_deg": self.rotation_deg,
            **dict(zip(("refined_x", "refined_y", "refined_z"), of.world_from_cam_44[:3, 3], strict=True)),
            "refined_inlier_share": of.inlier_share, "refined_score": of.score, "refined_confidence": of.confidence,
            "refined_sigma_m": np.nan if of.covariance_66 is None else np.sqrt(np.trace(of.covariance_66[3:, 3:])),
            "refined_agreement": of.agreement, "refined_seconds": of.seconds,
        }  # fmt: skip
        shown = {name: f"{value:.4f}" if np.isfinite(value) else "" for name, value in figures.items()}
        return {"refined": int(of.accepted), "refused_because": of.reason, **shown}


@dataclass(frozen=True)
class RefinedSummary:
    """Figures of a section: images that the map accepted, images whose position it made worse, and errors of all."""

    images: int
    accepted: int
    worse: int
    translation_m: Spread
    rotation_deg: Spread
    worst_m: float

    def __str__(self) -> str:
        return (
            f"Refined by the map: {self.accepted} of {self.images} images, {self.worse} worse than before; median "
            f"{self.rotation_deg.median:.3f} deg, {self.translation_m.median:.3f} m, worst {self.worst_m:.2f} m"
        )


def refined_summary(poses: Sequence[RefinedPose], coarse_m: Sequence[float]) -> RefinedSummary:
    """Figures of the refined poses of images, and their coarse errors."""
    errors_m = [pose.translation_m for pose in poses]
    return RefinedSummary(
        len(poses),
        sum(pose.refinement.accepted for pose in poses),
        sum(after > before for after, before in zip(errors_m, coarse_m, strict=True)),
        Spread.of(errors_m),
        Spread.of([pose.rotation_deg for pose in poses]),
        max(errors_m),
    )
