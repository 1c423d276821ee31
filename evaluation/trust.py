"""Figures with their uncertainty: one record per image, intervals, error distribution, and where the errors are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from scipy.stats import binomtest, bootstrap

from evaluation.coord import CoordResult
from evaluation.refined import RefinedPose
from evaluation.reports import Subject, section_file
from geometry.attitude import yaw_pitch_roll_from_enu_camera
from localization.calibration import (
    Calibration,
    Judgement,
    Reliability,
    Sample,
    fit,
    normalised_squared_errors,
    reliability,
)
from records.files import plain, write_json
from tasks import CLASS_NAMES, LAS_CODE_TO_CLASS

SHARES_M = (1, 3, 5, 10, 20)
LEVEL = 0.95
_RESAMPLES = 2000
# What a verdict promises unless told: this share of the distance to the scene.
_BOUND_SHARE = 0.05
# Lower ends of the groups that errors are told apart by.
DISTANCES_M = (0, 50, 100, 200, 400)
PITCHES_DEG = (-90, -75, -45, -15)


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; low and high are None where too few images say nothing of it."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ImageRecord:
    """All that an evaluation knows of one image.

    Attributes:
        position_error_m, rotation_error_deg: infinite without a pose.
        inlier_share: of the cells, by the solver's threshold. score, confidence, covariance_66, seconds: the solver's.
        sigma_m: median predicted standard deviation of the coordinates.
        distance_m: median distance of the labelled points from the true camera. pitch_deg: of the true camera.
        surface: class that most of the image shows; None without a semantics label.
        judgement: by the weights' calibration, where there is one.
        stage: coarse (the network's) or refined (by the map).
        map_m: what the covariance of a refined pose holds of the map's own error.
    """

    section: str
    stem: str
    success: bool
    world_from_cam_44: np.ndarray
    world_from_cam_true_44: np.ndarray
    position_error_m: float
    rotation_error_deg: float
    inliers: int | None
    inlier_share: float | None
    score: float | None
    confidence: float | None
    covariance_66: np.ndarray | None
    sigma_m: float | None
    seconds: float | None
    coord_error_median_m: float
    distance_m: float
    pitch_deg: float
    surface: str | None
    judgement: Judgement | None
    stage: str = "coarse"
    map_m: float = 0.0

    @classmethod
    def of(cls, result: CoordResult, calibration: Calibration | None, semantics: Path | None = None) -> ImageRecord:
        """The record of a result.

        Args:
            semantics: the image's label file of LAS codes, where there is one.
        """
        section, _, stem = result.stem.rpartition("/")
        pose = result.pose
        offset_3M = result.coord_true_3hw[:, result.valid_hw] - result.pose_true_44[:3, 3:]
        errors = result.error_hw[result.valid_hw]
        sigma_m = None if result.sigma_hw is None else float(np.median(result.sigma_hw))
        judgement = None
        if calibration is not None and pose.confidence is not None:
            judgement = calibration.judge(pose.confidence, pose.covariance_66, pose.success, sigma_m)
        return cls(
            section, stem, pose.success, pose.world_from_cam_44, result.pose_true_44, result.translation_m,
            result.rotation_deg, pose.inliers, None if pose.inliers is None else pose.inliers / result.valid_hw.size,
            pose.score, pose.confidence, pose.covariance_66,
            sigma_m, pose.seconds,
            float(np.median(errors)) if errors.size else float("nan"),
            float(np.median(np.linalg.norm(offset_3M, axis=0))) if errors.size else float("nan"),
            yaw_pitch_roll_from_enu_camera(result.pose_true_44[:3, :3])[1], dominant_class(semantics), judgement,
        )  # fmt: skip

    def refined(self, pose: RefinedPose, calibration: Calibration | None) -> ImageRecord:
        """The record after an attempt to refine the pose; the same where that was refused."""
        of = pose.refinement
        if not of.accepted:
            return self
        covariance_66 = np.full((6, 6), np.inf) if of.covariance_66 is None else of.covariance_66
        judgement = (
            None if calibration is None else calibration.judge(of.confidence, covariance_66, True, self.sigma_m, of.map_m)
        )
        return replace(
            self, success=True, world_from_cam_44=of.world_from_cam_44, position_error_m=pose.translation_m,
            rotation_error_deg=pose.rotation_deg, inliers=None, inlier_share=of.inlier_share, score=of.score,
            confidence=of.confidence, covariance_66=covariance_66, seconds=of.seconds, judgement=judgement, stage="refined",
            map_m=of.map_m,
        )  # fmt: skip

    @property
    def sample(self) -> Sample | None:
        """For calibration; None where the solver says nothing of its confidence."""
        if self.confidence is None or self.covariance_66 is None:
            return None
        turn_33 = self.world_from_cam_true_44[:3, :3].T @ self.world_from_cam_44[:3, :3]
        error_3 = self.world_from_cam_44[:3, 3] - self.world_from_cam_true_44[:3, 3]
        rotation_3 = Rotation.from_matrix(turn_33).as_rotvec()
        return Sample(self.confidence, self.covariance_66, self.success, error_3, rotation_3, self.sigma_m, self.map_m)

    def to_json(self) -> dict[str, Any]:
        """JSON form: what is not known, or infinite, is null."""
        content = dict(vars(self))
        for name in ("world_from_cam_44", "world_from_cam_true_44", "covariance_66"):
            value = content.pop(name)
            known = value is not None and np.isfinite(value).all() and (self.success or name != "world_from_cam_44")
            content[name.rpartition("_")[0]] = value.tolist() if known else None
        judgement = content.pop("judgement")
        content["verdict"] = None if judgement is None else judgement.verdict
        content["probability"] = None if judgement is None else judgement.probability
        content["probabilities"] = (
            None if judgement is None else {f"{bound:g}m": p for bound, p in judgement.probabilities.items()}
        )
        return plain(content)


def dominant_class(semantics: Path | None) -> str | None:
    """Name of the class that most pixels of a label of LAS codes show; None without a file."""
    if semantics is None or not semantics.is_file():
        return None
    codes = np.bincount(np.load(semantics, allow_pickle=False).ravel().astype(np.int64))
    shares: dict[str, int] = {}
    for code in np.flatnonzero(codes):
        index = LAS_CODE_TO_CLASS.get(int(code))
        name = "unknown" if index is None else CLASS_NAMES[index]
        shares[name] = shares.get(name, 0) + int(codes[code])
    return max(shares, key=shares.__getitem__)


def median(errors_N: np.ndarray, axis: int = -1) -> np.ndarray:
    """Median that is infinite, not NaN, between a finite and an infinite error."""
    ordered = np.sort(errors_N, axis=axis)
    count = ordered.shape[axis]
    return 0.5 * ordered.take((count - 1) // 2, axis) + 0.5 * ordered.take(count // 2, axis)


def bootstrapped(values_N: Sequence[float], statistic: Callable[..., Any] = median) -> Interval:
    """A statistic of the images with its percentile bootstrap interval; images are what is drawn anew."""
    array = np.asarray(values_N, np.float64)
    value = float(statistic(array))
    if array.size < 2:
        return Interval(value, None, None)
    # Percentiles, not BCa: the jackknife of infinite errors is no number, nor is the standard error that scipy adds.
    with np.errstate(invalid="ignore"):
        found = bootstrap(
            (array,), statistic, n_resamples=_RESAMPLES, method="percentile", confidence_level=LEVEL,
            random_state=np.random.default_rng(0),
        ).confidence_interval  # fmt: skip
    return Interval(value, float(found.low), float(found.high))


def share(hits: int, total: int) -> Interval:
    """A share with its Wilson interval: a bootstrap of nine hits in nine would be sure of 100 %."""
    found = binomtest(hits, total).proportion_ci(LEVEL, method="wilson")
    return Interval(hits / total, float(found.low), float(found.high))


def figures(records: Sequence[ImageRecord]) -> dict[str, Any]:
    """Figures of images with their intervals; the medians count an image without a pose as infinitely wrong."""
    error_m = np.array([record.position_error_m for record in records])
    error_deg = np.array([record.rotation_error_deg for record in records])
    failures = sum(not record.success for record in records)
    return {
        "images": len(records),
        "position_error_median_m": bootstrapped(error_m),
        "rotation_error_median_deg": bootstrapped(error_deg),
        "failures": share(failures, len(records)),
        "within": {f"{bound}m": share(int((error_m < bound).sum()), len(records)) for bound in SHARES_M},
    }


def groups(records: Sequence[ImageRecord]) -> dict[str, dict[str, Any]]:
    """The same figures by distance to the scene, by pitch and by what the image mostly shows."""
    found: dict[str, dict[str, list[ImageRecord]]] = {"distance_m": {}, "pitch_deg": {}, "class": {}}
    for record in sorted(records, key=lambda r: (np.nan_to_num(r.distance_m), r.pitch_deg)):
        found["distance_m"].setdefault(_range(record.distance_m, DISTANCES_M), []).append(record)
        found["class"].setdefault(record.surface or "unknown", []).append(record)
    for record in sorted(records, key=lambda r: r.pitch_deg):
        found["pitch_deg"].setdefault(_range(record.pitch_deg, PITCHES_DEG), []).append(record)
    return {kind: {name: figures(of_group) for name, of_group in parts.items()} for kind, parts in found.items()}


def _range(value: float, lows: Sequence[float]) -> str:
    if not np.isfinite(value):
        return "unknown"
    index = max(int(np.searchsorted(lows, value, side="right")) - 1, 0)
    return f"{lows[index]:g} to {lows[index + 1]:g}" if index + 1 < len(lows) else f"from {lows[index]:g}"


def cdf(errors_N: Sequence[float]) -> dict[str, list[float]]:
    """Error distribution: share of all images whose error is at most `error`; images without a pose never come in."""
    array = np.asarray(errors_N, np.float64)
    ordered = np.sort(array[np.isfinite(array)])
    return {"error": ordered.tolist(), "share": ((np.arange(ordered.size) + 1) / max(array.size, 1)).tolist()}


@dataclass
class TrustFigures:
    """Gathers the records of a section.

    Attributes:
        calibration: of the weights for this stage, where there is one.
        stage: whose poses: coarse, or refined; then photos whose refinement was refused keep their coarse pose, and take no
            part in calibration.
    """

    calibration: Calibration | None = None
    stage: str = "coarse"
    records: list[ImageRecord] = field(default_factory=list)

    def add(self, result: CoordResult, image: Path) -> None:
        """Adds an image; its semantics label is looked for beside it."""
        semantics = image.parent.parent / "semantics" / f"{image.stem}.npy"
        if self.stage == "coarse":
            self.records.append(ImageRecord.of(result, self.calibration, semantics))
        elif result.refined is not None:
            self.records.append(ImageRecord.of(result, None, semantics).refined(result.refined, self.calibration))

    @property
    def samples(self) -> list[Sample]:
        """Of the poses of this stage that come with a confidence."""
        found = (record.sample for record in self.records if record.stage == self.stage)
        return [sample for sample in found if sample is not None]

    @property
    def reliability(self) -> Reliability | None:
        """How well the calibration held here; None without one."""
        samples = self.samples
        return reliability(samples, self.calibration) if self.calibration is not None and samples else None

    @property
    def consistency(self) -> dict[str, dict[str, float]]:
        """Mean and median of `normalised_squared_errors`, of the covariances as given and as calibrated."""
        found = {}
        for name, calibration in (("as_given", None), ("calibrated", self.calibration)):
            errors_N = normalised_squared_errors(self.samples, calibration)
            if errors_N.size and (name == "as_given" or calibration is not None):
                found[name] = {"mean": float(errors_N.mean()), "median": float(np.median(errors_N))}
        return found

    def judge_by(self, calibration: Calibration) -> None:
        """Judges what was gathered by a calibration."""
        self.calibration = calibration
        self.records = [
            record
            if record.confidence is None or record.stage != self.stage
            else replace(record, judgement=calibration.judge_sample(record.sample))
            for record in self.records
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything, in JSON types."""
        records = self.records
        return plain(
            {
                "level": LEVEL,
                "figures": figures(records),
                "cdf": {
                    "position_m": cdf([record.position_error_m for record in records]),
                    "rotation_deg": cdf([record.rotation_error_deg for record in records]),
                },
                "groups": groups(records),
                "calibration": self.calibration,
                "reliability": self.reliability,
                "normalised_squared_error": self.consistency,
                "images": [record.to_json() for record in records],
            }
        )


def learn_calibration(gathered: TrustFigures, subject: Subject, bound_m: float | None) -> Calibration:
    """A calibration of what a section gave.

    Args:
        bound_m: what the verdict promises; None: 5 % of the median distance to the scene, to two digits.
    Raises:
        ValueError: the solver gave no confidence.
    """
    samples = gathered.samples
    if not samples:
        raise ValueError("this solver says nothing of its confidence: calibrate with --solver dsacstar")
    if bound_m is None:
        distance_m = float(np.nanmedian([record.distance_m for record in gathered.records]))
        bound_m = float(f"{_BOUND_SHARE * distance_m:.2g}")
    return fit(samples, SHARES_M, bound_m, subject.to_json())


def metrics_path(weights: Path, section: str) -> Path:
    """Where the figures of a weights file on a section are kept."""
    return section_file(weights, section, "metrics.json")


def write_metrics(weights: Path, subject: Subject, figures: TrustFigures, refined: TrustFigures | None = None) -> None:
    """Writes the figures beside the weights, bound to what they were measured on; those of refined poses under `refined`."""
    time = datetime.now(timezone.utc).isoformat()
    content = {"weights": weights.name, **subject.to_json(), "time": time, **figures.to_json()}
    content["refined"] = None if refined is None else refined.to_json()
    write_json(metrics_path(weights, subject.section), content)
