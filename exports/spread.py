"""How far an answer may be off, read out of its covariance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Standard deviations of a pose; all None where the covariance is not known.

    Attributes:
        east_m, north_m, up_m: of the camera centre along the axes of the local frame.
        rotation_deg: root of the summed variances about the camera's three axes.
    """

    east_m: float | None
    north_m: float | None
    up_m: float | None
    rotation_deg: float | None

    @classmethod
    def of(cls, covariance_66: np.ndarray) -> Spread:
        """From a covariance of (rotation vector in camera axes, camera centre in the world)."""
        if not np.isfinite(covariance_66).all():
            return cls(None, None, None, None)
        east, north, up = (float(value) for value in np.sqrt(np.diag(covariance_66)[3:]))
        return cls(east, north, up, float(np.rad2deg(np.sqrt(np.trace(covariance_66[:3, :3])))))

    @property
    def horizontal_m(self) -> float | None:
        """Root of the summed variances in the plane."""
        return None if self.east_m is None else float(np.hypot(self.east_m, self.north_m))
