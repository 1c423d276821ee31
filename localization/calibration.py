"""How far an answer can be believed, learned from a validation section: P(error below a bound), covariance, verdict.

The solver says how sure it is that a pose is no chance, and a covariance from how the cells disagree. What all cells of an
image err in common it cannot see; how large that may be, the network's predicted deviation tells, and of refined poses the
map's pixels (a map that is off takes along all that is found in it). Together they predict how likely the camera is within
any distance of the estimate, and a validation section with known poses says how much of that is true; nothing is called ok
that is far beyond what validation has seen. Validation sections of real photos are small (2 for Brighton Beach, 10 in the
demo), so that little is learned from few samples: every fitted number is pulled towards what is assumed without any, with
the weight of a handful of photos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import chi2

from localization.answer import Answer
from records import fingerprint
from records.files import plain, read_json, write_json
from records.options import from_record

# What poses a calibration is of: the network's, or those that the map accepted.
STAGES = ("coarse", "refined")
FORMAT, VERSION = "crossloc calibration", 2
# Photos that the belief in the solver's own covariance of the rotation weighs as much as.
_PRIOR_PHOTOS = 4.0
# Before any photo is seen, in logarithms: the scale of the solver's deviations is 1, what cells err in common is as large as
# the network says of each.
_SCALE_SPREAD, _COMMON_SPREAD = 0.5, 0.7
# Share of answers whose errors follow no covariance, and the reach of those, metres.
_WRONG_SHARE, _WRONG_REACH_M = 0.1, 200.0
# Standard deviations of the slope about 1 and of the offset about 0, in logits, before any photo is seen.
_SLOPE_SPREAD, _OFFSET_SPREAD = 0.5, 1.0
_MIN_PROBABILITY = 1e-3
# A network this many times less sure of a photo than of any validated one is beyond what validation has seen.
_BEYOND_VALIDATION = 2.0
# Share of the photos called ok that must have been right in validation: below ten photos, all of them.
_OK_RIGHT = 0.9
# No verdict is ok below the first, and none is failed from the second on, whatever a small validation section says.
_LEAST_OK, _MOST_FAILED = 0.5, 0.2
_DIRECTIONS = 4096
# Fewer than this are too few to choose by; it is said.
FEW_PHOTOS = 30


@dataclass(frozen=True)
class Sample:
    """A photo with a known pose, and what the solver said of it.

    Attributes:
        confidence, covariance_66, success: the solver's; infinite covariance where it is not known.
        position_error_3: estimate minus truth, metres. rotation_error_3: rotation vector from truth to estimate in the
            camera's axes, radians. Both mean nothing without success.
        sigma_m: median predicted deviation of the scene coordinates; None of a network without uncertainty.
        map_m: what the covariance of a refined pose holds of the map's own error, standard deviation per axis.
    """

    confidence: float
    covariance_66: np.ndarray
    success: bool
    position_error_3: np.ndarray
    rotation_error_3: np.ndarray
    sigma_m: float | None = None
    map_m: float = 0.0

    @property
    def error_m(self) -> float:
        """Distance of the camera centres; infinite without a pose."""
        return float(np.linalg.norm(self.position_error_3)) if self.success else float("inf")


@dataclass(frozen=True)
class Judgement:
    """What is believed of an answer.

    Attributes:
        probability: that the camera is within the verdict's bound. probabilities: within each calibrated bound, by metres.
        covariance_66: scaled. verdict: ok, doubtful or failed.
    """

    probability: float
    probabilities: Mapping[float, float]
    covariance_66: np.ndarray
    verdict: str


@dataclass(frozen=True)
class Calibration:
    """What a validation section taught.

    Attributes:
        bound_m: what the verdict is about: the camera is off by less than this.
        bounds_m: for which probabilities are calibrated, ascending; `bound_m` is among them.
        slopes, offsets: of the logistic map of each bound.
        position_scale, rotation_scale: of the solver's standard deviations.
        common: what all cells err in common, per axis, in units of the network's predicted deviation; of refined poses: of
            the error that their map is assumed to have.
        ok_above, failed_below: probabilities between which the verdict is doubtful.
        most_sigma_m: a network that is less sure than this is doubtful at best: validation has nothing to say of such
            photos. None where the network has no uncertainty.
        photos, wrong: of the validation section; those that were off by more than the bound.
        source: what it was learned on (section, fingerprints, settings).
    """

    bound_m: float
    bounds_m: tuple[float, ...]
    slopes: tuple[float, ...]
    offsets: tuple[float, ...]
    position_scale: float
    rotation_scale: float
    common: float
    ok_above: float
    failed_below: float
    most_sigma_m: float | None
    photos: int
    wrong: int
    source: Mapping[str, Any]

    def judge(
        self, confidence: float, covariance_66: np.ndarray, success: bool, sigma_m: float | None = None, map_m: float = 0.0
    ) -> Judgement:
        """Judges what solver and network say of a photo; see `Sample`."""
        covariance_66 = self.believed(covariance_66, sigma_m, map_m)
        raw_B = [raw_probability(confidence, covariance_66, success, bound_m) for bound_m in self.bounds_m]
        # A larger bound is never less likely, though each has a map of its own.
        calibrated_B = np.maximum.accumulate(expit(self.offsets + np.asarray(self.slopes) * _logit(np.array(raw_B))))
        probabilities = {bound_m: float(p) for bound_m, p in zip(self.bounds_m, calibrated_B, strict=True)}
        probability = probabilities[self.bound_m]
        if not success or probability < self.failed_below:
            verdict = "failed"
        elif probability < self.ok_above or (self.most_sigma_m is not None and (sigma_m or 0.0) > self.most_sigma_m):
            verdict = "doubtful"
        else:
            verdict = "ok"
        return Judgement(probability, probabilities, covariance_66, verdict)

    def judge_sample(self, sample: Sample) -> Judgement:
        """Judges what is said of a photo with a known pose."""
        return self.judge(sample.confidence, sample.covariance_66, sample.success, sample.sigma_m, sample.map_m)

    def believed(self, covariance_66: np.ndarray, sigma_m: float | None, map_m: float = 0.0) -> np.ndarray:
        """The covariance as validation says that it is."""
        scale_6, position_66 = np.repeat([self.rotation_scale, self.position_scale], 3), np.diag([0.0] * 3 + [1.0] * 3)
        own_66 = covariance_66 - map_m**2 * position_66
        return own_66 * np.outer(scale_6, scale_6) + (self.common * _in_common_m(sigma_m, map_m)) ** 2 * position_66

    def __str__(self) -> str:
        limit = "" if self.most_sigma_m is None else f" and a predicted deviation up to {self.most_sigma_m:.2g} m"
        few = f"; {self.photos} photos are few: the solver's own word weighs most" if self.photos < FEW_PHOTOS else ""
        return (
            f"calibrated on {self.photos} photos, {self.wrong} of them off by more than {self.bound_m:g} m: standard "
            f"deviations times {self.position_scale:.2f} (position) and {self.rotation_scale:.2f} (rotation), and "
            f"{self.common:.2f} of the network's (of refined poses: the map's) in common; ok from "
            f"P(error < {self.bound_m:g} m) = {self.ok_above:.2f}{limit}, failed below {self.failed_below:.2f}{few}"
        )


def judged(answer: Answer, calibration: Calibration) -> Answer:
    """The answer with calibrated confidence, covariance and verdict; as it is where no confidence was given.

    The calibration must be of answers of that stage: a refined pose has another covariance than a coarse one.
    """
    if answer.confidence is None:
        return answer
    judgement = calibration.judge(answer.confidence, answer.covariance_66, answer.success, answer.sigma, answer.map_m)
    return replace(
        answer, confidence=judgement.probability, covariance_66=judgement.covariance_66, verdict=judgement.verdict
    )


def raw_probability(confidence: float, covariance_66: np.ndarray, success: bool, bound_m: float) -> float:
    """P(error < bound) if the solver were right: it is sure of the structure, and errors are normal with its covariance."""
    if not success or not np.isfinite(covariance_66).all():
        return 0.0
    return float(confidence * np.mean(_squared_lengths(covariance_66[3:, 3:]) < bound_m**2))


def fit(samples: Sequence[Sample], bounds_m: Sequence[float], bound_m: float, source: Mapping[str, Any]) -> Calibration:
    """Learns a calibration.

    Args:
        bounds_m: errors to give probabilities of, metres. bound_m: the one that the verdict is about.
        source: what the samples are from; kept with the calibration.
    Raises:
        ValueError: no sample.
    """
    if not samples:
        raise ValueError("there is no photo to calibrate on")
    position_scale, common = _position_scales([sample for sample in samples if _is_known(sample)])
    rotation_scale = _rotation_scale([(s.rotation_error_3, s.covariance_66[:3, :3]) for s in samples if _is_known(s)])
    bounds = tuple(sorted({float(bound) for bound in (*bounds_m, bound_m)}))
    one, zero = (1.0,) * len(bounds), (0.0,) * len(bounds)
    sigmas_m = [sample.sigma_m for sample in samples if sample.sigma_m is not None]
    unmapped = Calibration(
        bound_m=float(bound_m), bounds_m=bounds, slopes=one, offsets=zero, position_scale=position_scale,
        rotation_scale=rotation_scale, common=common, ok_above=1.0, failed_below=0.0,
        most_sigma_m=_BEYOND_VALIDATION * max(sigmas_m) if sigmas_m else None, photos=len(samples),
        wrong=sum(sample.error_m >= bound_m for sample in samples), source=source,
    )  # fmt: skip
    maps = []
    for bound in bounds:
        raw_N = [
            raw_probability(s.confidence, unmapped.believed(s.covariance_66, s.sigma_m, s.map_m), s.success, bound)
            for s in samples
        ]
        maps.append(_logistic(np.array(raw_N), np.array([s.error_m < bound for s in samples])))
    mapped = replace(unmapped, slopes=tuple(m[0] for m in maps), offsets=tuple(m[1] for m in maps))
    p_N = np.array([mapped.judge_sample(s).probability for s in samples])
    right_N = np.array([s.error_m < bound_m for s in samples])
    failed_below = min(_MOST_FAILED, float(p_N[right_N].min(initial=1.0)))  # no validated photo that was right is below
    return replace(mapped, ok_above=_ok_above(p_N, right_N), failed_below=failed_below)


def _ok_above(p_N: np.ndarray, right_N: np.ndarray) -> float:
    """The lowest probability of which `_OK_RIGHT` of the validated photos from there on were right."""
    for threshold in [_LEAST_OK, *np.unique(p_N[p_N > _LEAST_OK])]:
        accepted_N = p_N >= threshold
        if accepted_N.any() and right_N[accepted_N].mean() >= _OK_RIGHT:
            return float(threshold)
    return float(np.nextafter(max(p_N.max(), _LEAST_OK), 1.0))


def _is_known(sample: Sample) -> bool:
    return sample.success and bool(np.isfinite(sample.covariance_66).all())


def _in_common_m(sigma_m: float | None, map_m: float) -> float:
    """What errors in common are measured by: a refined pose errs with its map, not with the network that it came from."""
    return map_m or sigma_m or 0.0


def _squared_lengths(covariance_33: np.ndarray) -> np.ndarray:
    """Squared lengths of normal errors with a covariance, at fixed random directions."""
    variance_3 = np.maximum(np.linalg.eigvalsh(covariance_33), 0.0)
    return _squared_normals() @ variance_3


@cache
def _squared_normals() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((_DIRECTIONS, 3)) ** 2


def _rotation_scale(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Factor of standard deviations with which the median squared Mahalanobis distance is that of a normal error.

    The median, since wrong poses follow no covariance; drawn towards 1 where there are few.
    """
    if not pairs:
        return 1.0
    distances = [float(error_3 @ np.linalg.pinv(C_33, hermitian=True) @ error_3) for error_3, C_33 in pairs]
    measured = max(float(np.median(distances)), 1e-12) / chi2.ppf(0.5, 3)
    return float(measured ** (0.5 * len(pairs) / (len(pairs) + _PRIOR_PHOTOS)))


def _position_scales(samples: Sequence[Sample]) -> tuple[float, float]:
    """(scale of the solver's deviations, common error per predicted deviation) that make the errors likeliest."""
    if not samples:
        return 1.0, 1.0
    error_N3 = np.array([sample.position_error_3 for sample in samples])
    C_N33 = np.array([sample.covariance_66[3:, 3:] - sample.map_m**2 * np.eye(3) for sample in samples])
    sigma_N = np.array([_in_common_m(sample.sigma_m, sample.map_m) for sample in samples])
    wrong_density = _WRONG_SHARE / (4 / 3 * np.pi * _WRONG_REACH_M**3)

    def cost(logarithms: np.ndarray) -> float:
        scale, common = np.exp(logarithms)
        total_N33 = scale**2 * C_N33 + ((common * sigma_N) ** 2)[:, None, None] * np.eye(3) + 1e-12 * np.eye(3)
        squared_N = np.einsum("ni,nij,nj->n", error_N3, np.linalg.inv(total_N33), error_N3)
        density_N = np.exp(-0.5 * squared_N) / np.sqrt((2 * np.pi) ** 3 * np.linalg.det(total_N33))
        surprise = -np.log((1 - _WRONG_SHARE) * density_N + wrong_density).sum()
        return float(surprise + 0.5 * (logarithms[0] / _SCALE_SPREAD) ** 2 + 0.5 * (logarithms[1] / _COMMON_SPREAD) ** 2)

    found = minimize(cost, np.zeros(2), method="Nelder-Mead")
    scale, common = np.exp(found.x)
    return float(scale), float(common)


def _logit(p: np.ndarray) -> np.ndarray:
    return logit(np.clip(p, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY))


def _logistic(raw_N: np.ndarray, right_N: np.ndarray) -> tuple[float, float]:
    """Slope and offset, in logits, that make the outcomes likeliest; with a prior, so that one class alone is no problem."""
    x_N, sign_N = _logit(raw_N), np.where(right_N, 1.0, -1.0)

    def cost(parameters: np.ndarray) -> float:
        slope, offset = parameters
        surprise = np.logaddexp(0.0, -sign_N * (offset + slope * x_N)).sum()
        return float(surprise + 0.5 * ((slope - 1) / _SLOPE_SPREAD) ** 2 + 0.5 * (offset / _OFFSET_SPREAD) ** 2)

    found = minimize(cost, np.array([1.0, 0.0]), bounds=[(0.0, None), (None, None)])
    return float(found.x[0]), float(found.x[1])


def calibration_path(weights: Path) -> Path:
    """Where the calibration of a weights file is kept."""
    return weights.with_name(f"{weights.stem}.calibration.json")


def write_calibration(weights: Path, calibration: Calibration, stage: str = "coarse") -> Path:
    """Keeps a calibration beside the weights, bound to their content; that of other stages stays.

    Raises:
        ValueError: the file there is damaged.
    """
    path = calibration_path(weights)
    content = fingerprint.of_file(weights)
    stages = {}
    if path.is_file():
        before = _read(path)
        stages = before["stages"] if before["weights_fingerprint"] == content else {}
    record = {
        "format": FORMAT, "version": VERSION, "weights_fingerprint": content,
        "stages": {**stages, stage: plain(calibration)},
    }  # fmt: skip
    write_json(path, record)
    return path


def calibration_of(weights: Path, stage: str = "coarse") -> Calibration | None:
    """The calibration of a weights file for coarse or refined answers; None when there is none.

    Raises:
        ValueError: it is damaged, or was learned with other weights than are there now.
    """
    path = calibration_path(weights)
    if not path.is_file():
        return None
    record = _read(path)
    if record["weights_fingerprint"] != fingerprint.of_file(weights):
        raise ValueError(f"{path} was learned with other weights than {weights}: calibrate again, or delete it")
    values = record["stages"].get(stage)
    return None if values is None else from_record(Calibration, values, f"calibration {path}")


def _read(path: Path) -> dict[str, Any]:
    record = read_json(path, "calibration")
    if not isinstance(record, dict) or record.get("format") != FORMAT or record.get("version") != VERSION:
        raise ValueError(f"{path} is not a calibration of version {VERSION}: calibrate again, or delete it")
    if not isinstance(record.get("stages"), dict) or "weights_fingerprint" not in record:
        raise ValueError(f"calibration {path} is damaged")
    return record


@dataclass(frozen=True)
class Reliability:
    """How well judgements of photos with known poses held.

    Attributes:
        photos, right: off by less than the bound.
        auroc: probability that a right photo was believed more than a wrong one; None where all are alike.
        brier: mean squared difference of probability and outcome.
        bins: (photos, mean probability, share right) of fifths of [0, 1] that hold any.
        verdicts: by verdict: (photos, share right).
        within_one_sigma, within_two_sigma: share of the photos with a pose inside the covariance's ellipsoid of one and two
            standard deviations (0.20 and 0.74 of normal errors in three dimensions).
    """

    photos: int
    right: int
    auroc: float | None
    brier: float
    bins: tuple[tuple[int, float, float], ...]
    verdicts: Mapping[str, tuple[int, float]]
    within_one_sigma: float | None
    within_two_sigma: float | None


def reliability(samples: Sequence[Sample], calibration: Calibration) -> Reliability:
    """Holds judgements against the truth."""
    judgements = [calibration.judge_sample(s) for s in samples]
    p_N = np.array([judgement.probability for judgement in judgements])
    right_N = np.array([sample.error_m < calibration.bound_m for sample in samples])
    verdict_N = np.array([judgement.verdict for judgement in judgements])
    fifth_N = np.minimum((p_N * 5).astype(int), 4)
    bins = tuple(
        (int(inside.sum()), float(p_N[inside].mean()), float(right_N[inside].mean()))
        for inside in (fifth_N == fifth for fifth in range(5))
        if inside.any()
    )
    verdicts = {
        verdict: (int((verdict_N == verdict).sum()), float(right_N[verdict_N == verdict].mean()))
        for verdict in dict.fromkeys(verdict_N.tolist())
    }
    distances = np.array(
        [
            float(s.position_error_3 @ np.linalg.pinv(j.covariance_66[3:, 3:], hermitian=True) @ s.position_error_3)
            for s, j in zip(samples, judgements, strict=True)
            if _is_known(s)
        ]
    )
    within = [float((distances < sigmas**2).mean()) if distances.size else None for sigmas in (1, 2)]
    brier = float(np.mean((p_N - right_N) ** 2))
    return Reliability(len(samples), int(right_N.sum()), auroc(p_N, right_N), brier, bins, verdicts, *within)


def normalised_squared_errors(samples: Sequence[Sample], calibration: Calibration | None = None) -> np.ndarray:
    """Squared errors of known poses over their covariances, per degree of freedom: position and rotation together.

    Where the covariances are right they are 1 in the mean and 0.89 in the median.

    Args:
        calibration: whose covariances are meant; None: those that the samples come with.
    """
    found = []
    for sample in filter(_is_known, samples):
        believed_66 = sample.covariance_66
        if calibration is not None:
            believed_66 = calibration.judge_sample(sample).covariance_66
        error_6 = np.concatenate((sample.rotation_error_3, sample.position_error_3))
        found.append(float(error_6 @ np.linalg.solve(believed_66, error_6)) / 6)
    return np.array(found)


def auroc(score_N: np.ndarray, right_N: np.ndarray) -> float | None:
    """Probability that a right one has the higher score; ties count half. None where all are right or all wrong."""
    right, wrong = score_N[right_N], score_N[~right_N]
    if right.size == 0 or wrong.size == 0:
        return None
    return float((right[:, None] > wrong).mean() + 0.5 * (right[:, None] == wrong).mean())
