"""What the system says of one photo: where its camera was, which way it looked, and how far that can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VERDICTS = ("ok", "doubtful", "failed")


@dataclass(frozen=True)
class Answer:
    """One photo's pose.

    Attributes:
        name: the photo, relative to what was asked for; a frame of a video is `<video>#<number>`.
        world_from_cam_44: float64 camera-to-world, OpenCV axes, metres in the scene's local frame; the best guess there is,
            also of a failure (the identity where there is none).
        K_33: float64 intrinsics, pixels of the photo as it was given, after its EXIF orientation and without distortion.
        size_wh: of that photo, pixels.
        verdict: one of VERDICTS. confidence: in [0, 1], or None where nothing judges.
        covariance_66: float64, of (rotation vector in the camera's axes in radians, camera centre in the world in metres),
            as the solver gives it; infinite where it is not known.
        inlier_share: share of the cells that agree with the pose.
        score: what the solver ranks poses by; larger is better.
        sigma: median predicted standard deviation of the scene coordinates, metres; None of a network without uncertainty.
        stage: coarse (the network's) or refined (by the map).
        coarse: the answer before refinement, where there was one.
        seconds: spent on it.
        time_s: when it was taken, seconds since the epoch or the video's start; None where nothing says.
        map_m: of a refined pose: what its covariance holds of the map's own error, standard deviation per axis, metres.
    """

    name: str
    world_from_cam_44: np.ndarray
    K_33: np.ndarray
    size_wh: tuple[int, int]
    verdict: str
    confidence: float | None
    covariance_66: np.ndarray
    inlier_share: float
    score: float
    sigma: float | None
    stage: str
    seconds: float
    coarse: Answer | None = None
    time_s: float | None = None
    map_m: float = 0.0

    @property
    def success(self) -> bool:
        """Whether there is a pose to go by."""
        return self.verdict != "failed"
