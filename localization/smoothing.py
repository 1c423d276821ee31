"""Answers of a flight in time order, smoothed: each pose by its covariance, neighbours by nearly constant velocity.

The state is one pose per photo; the cost is that of the answers (Mahalanobis distance of rotation and centre) plus that of
changes of velocity and of turn rate from one photo to the next. Both are robust: a wrong answer gives way to its neighbours,
and the turn at the end of a flight line gives way to the answers. How much a flight changes its velocity is measured on the
answers themselves, so that photos that are no track are left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.optimize import least_squares
from scipy.sparse import csr_matrix, lil_matrix
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation, Slerp

from localization.answer import Answer

STAGE = "smoothed"
# Scale of the robust costs, standard deviations; that of the answers gets stricter as the track takes shape.
_ANSWER_SCALES = (10.0, 3.0)
_MOTION_SCALE = 3.0
# An answer that is this many standard deviations off all that its neighbours foretell starts from them instead.
_FOREIGN = 4.0
# Of the measured unsteadiness: a flight is never steadier than this, m/s2 and rad/s2 per root second.
_LEAST_UNSTEADY = np.array([0.02, 0.002])
# Share of the changes of motion that may be anything: line ends, wrong answers.
_FOREIGN_SHARE = 0.2
FEWEST = 4
_EVALUATIONS = 30


@dataclass(frozen=True)
class _Track:
    """Measurements of a flight.

    Attributes:
        time_N: seconds, ascending. centre_N3, turn_N: the answers' poses. whiten_N66: inverse square roots of their
            covariances of (rotation, centre). known_N: whether there is an answer to go by.
    """

    time_N: np.ndarray
    centre_N3: np.ndarray
    turn_N: Rotation
    whiten_N66: np.ndarray
    known_N: np.ndarray


def smooth(answers: Sequence[Answer]) -> list[Answer]:
    """Smooths the answers of one flight.

    Args:
        answers: with `time_s`, in any order; covariances as they are believed (calibrated ones where there are).
    Returns:
        the answers in the order given, stage `smoothed`, with the pose and covariance of the whole flight. A photo without a
        pose between two with one gets theirs in between and the verdict doubtful; before the first and after the last it
        stays as it is. Fewer than four answers with a known covariance are returned as they are.
    Raises:
        ValueError: a photo has no time, or two have the same.
    """
    order = _time_order(answers)
    usable = [index for index in order if _is_known(answers[index])]
    if len(usable) < FEWEST:
        return list(answers)
    first, last = order.index(usable[0]), order.index(usable[-1])
    inside = order[first : last + 1]
    track = _track([answers[index] for index in inside])
    turns, centres_N3, covariance_N66 = _optimised(track)
    smoothed = list(answers)
    for position, index in enumerate(inside):
        pose_44 = np.eye(4)
        pose_44[:3, :3], pose_44[:3, 3] = turns[position].as_matrix(), centres_N3[position]
        verdict = answers[index].verdict if answers[index].success else "doubtful"
        smoothed[index] = replace(
            answers[index], world_from_cam_44=pose_44, covariance_66=covariance_N66[position], stage=STAGE, verdict=verdict
        )
    return smoothed


def _time_order(answers: Sequence[Answer]) -> list[int]:
    missing = [answer.name for answer in answers if answer.time_s is None]
    if missing:
        raise ValueError(f"smoothing needs the time of every photo; {len(missing)} have none, such as {missing[0]}")
    order = sorted(range(len(answers)), key=lambda index: answers[index].time_s)
    for before, after in pairwise(order):
        if answers[before].time_s == answers[after].time_s:
            raise ValueError(f"{answers[before].name} and {answers[after].name} were taken at the same time")
    return order


def _is_known(answer: Answer) -> bool:
    return answer.success and bool(np.isfinite(answer.covariance_66).all())


def _track(answers: Sequence[Answer]) -> _Track:
    time_N = np.array([answer.time_s for answer in answers], np.float64)
    known_N = np.array([_is_known(answer) for answer in answers])
    centre_N3 = np.array([answer.world_from_cam_44[:3, 3] for answer in answers])
    turn_N = Rotation.from_matrix(np.array([answer.world_from_cam_44[:3, :3] for answer in answers]))
    centre_N3, turn_N = _between(time_N, centre_N3, turn_N, known_N)
    whiten_N66 = np.zeros((len(answers), 6, 6))
    for index in np.flatnonzero(known_N):
        values, vectors_66 = np.linalg.eigh(answers[index].covariance_66)
        values = np.maximum(values, max(values.max() * 1e-12, 1e-18))
        whiten_N66[index] = (vectors_66 / np.sqrt(values)).T
    return _Track(time_N, centre_N3, turn_N, whiten_N66, known_N)


def _between(time_N: np.ndarray, centre_N3: np.ndarray, turns: Rotation, kept_N: np.ndarray) -> tuple[np.ndarray, Rotation]:
    """Poses of which only the kept ones stand; the others come to lie between those (outside of them: like the nearest)."""
    kept_time = time_N[kept_N]
    centres = [np.interp(time_N, kept_time, centre_N3[kept_N, axis]) for axis in range(3)]
    return np.stack(centres, 1), Slerp(kept_time, turns[kept_N])(np.clip(time_N, kept_time[0], kept_time[-1]))


def _foreign(track: _Track, unsteady_m: float) -> np.ndarray:
    """Answers [N] whose centre is far from all that their neighbours foretell: from before, from after and in between.

    The end of a flight line agrees with what came before it; a wrong answer with nothing.
    """
    known = np.flatnonzero(track.known_N)
    time_N, centre_N3 = track.time_N[known], track.centre_N3[known]
    sigma_N = np.sqrt(_variances(track.whiten_N66[known])[:, 3:].mean(1))
    foreign_N = np.zeros(len(track.time_N), bool)
    for position, index in enumerate(known):
        distances = []
        for offsets in ((-2, -1), (1, 2), (-1, 1)):
            first, second = (position + offset for offset in offsets)
            if first < 0 or second >= len(known):
                continue
            share = (time_N[position] - time_N[first]) / (time_N[second] - time_N[first])
            foretold_3 = centre_N3[first] + share * (centre_N3[second] - centre_N3[first])
            span_s = max(abs(time_N[position] - time_N[first]), abs(time_N[position] - time_N[second]))
            variance = sigma_N[position] ** 2 + ((1 - share) * sigma_N[first]) ** 2 + (share * sigma_N[second]) ** 2
            variance += unsteady_m**2 * span_s**3
            distances.append(np.linalg.norm(centre_N3[position] - foretold_3) / np.sqrt(3 * variance))
        foreign_N[index] = bool(distances) and min(distances) > _FOREIGN
    return foreign_N


def _unsteadiness(track: _Track) -> np.ndarray:
    """How much velocity (m/s) and turn rate (rad/s) change per root second: what the answers show beyond their own noise."""
    known = np.flatnonzero(track.known_N)
    time_N, centre_N3, turns = track.time_N[known], track.centre_N3[known], track.turn_N[known]
    step_M1 = np.diff(time_N)[:, None]
    between_K1 = 0.5 * (step_M1[1:] + step_M1[:-1])
    variance_N6 = _variances(track.whiten_N66[known])
    velocity_M3 = np.diff(centre_N3, axis=0) / step_M1
    rate_M3 = (turns[:-1].inv() * turns[1:]).as_rotvec() / step_M1
    found = []
    for value_M3, variance_N3 in ((velocity_M3, variance_N6[:, 3:]), (rate_M3, variance_N6[:, :3])):
        noise_K3 = variance_N3[:-2] / step_M1[:-1] ** 2 + variance_N3[2:] / step_M1[1:] ** 2
        noise_K3 += variance_N3[1:-1] * (1 / step_M1[:-1] + 1 / step_M1[1:]) ** 2
        found.append(_excess(np.diff(value_M3, axis=0) / np.sqrt(between_K1), noise_K3 / between_K1))
    return np.maximum(found, _LEAST_UNSTEADY)


def _excess(change_K3: np.ndarray, noise_K3: np.ndarray) -> float:
    """Standard deviation beyond their noise that makes changes likeliest; a share of them may be anything.

    Those are line ends and wrong answers: three changes each.
    """
    reach = 2 * float(np.abs(change_K3).max()) + 1e-12
    candidates = reach * np.logspace(-5, 0, 101)
    variance_CK3 = noise_K3 + candidates[:, None, None] ** 2
    density_CK3 = np.exp(-0.5 * change_K3**2 / variance_CK3) / np.sqrt(2 * np.pi * variance_CK3)
    likelihood_C = np.log((1 - _FOREIGN_SHARE) * density_CK3 + _FOREIGN_SHARE / reach).sum(axis=(1, 2))
    return float(candidates[likelihood_C.argmax()])


def _variances(whiten_N66: np.ndarray) -> np.ndarray:
    """Variances [N, 6] of answers from the inverse square roots of their covariances."""
    return np.stack([np.diag(np.linalg.pinv(whiten_66.T @ whiten_66)) for whiten_66 in whiten_N66])


def _optimised(track: _Track) -> tuple[Rotation, np.ndarray, np.ndarray]:
    """(rotations, centres, covariances of (rotation in camera axes, centre)) of least cost."""
    count = len(track.time_N)
    sigma_2 = _unsteadiness(track)
    trusted_N = track.known_N & ~_foreign(track, sigma_2[0])
    if trusted_N.sum() < 2:
        trusted_N = track.known_N
    centre_N3, turns = _between(track.time_N, track.centre_N3, track.turn_N, trusted_N)
    pattern = _sparsity(count)
    for scale in _ANSWER_SCALES:

        def residuals(step_N6: np.ndarray, turns=turns, centre_N3=centre_N3, scale=scale) -> np.ndarray:
            step_N6 = step_N6.reshape(count, 6)
            return _residuals(
                track, turns * Rotation.from_rotvec(step_N6[:, :3]), centre_N3 + step_N6[:, 3:], sigma_2, scale
            )

        found = least_squares(
            residuals, np.zeros(6 * count), jac_sparsity=pattern, x_scale="jac", max_nfev=_EVALUATIONS, tr_solver="lsmr"
        )
        step_N6 = found.x.reshape(count, 6)
        turns, centre_N3 = turns * Rotation.from_rotvec(step_N6[:, :3]), centre_N3 + step_N6[:, 3:]
    return turns, centre_N3, _covariances(csr_matrix(found.jac), count)


def _residuals(
    track: _Track, turns: Rotation, centre_N3: np.ndarray, sigma_2: np.ndarray, answer_scale: float
) -> np.ndarray:
    """Whitened residuals of answers [N, 6] and of changes of motion [N - 2, 6], flat."""
    error_N6 = np.concatenate(((track.turn_N.inv() * turns).as_rotvec(), centre_N3 - track.centre_N3), 1)
    answer_N6 = _robust(np.einsum("nij,nj->ni", track.whiten_N66, error_N6), answer_scale)
    step_M1 = np.diff(track.time_N)[:, None]
    rate_M3 = (turns[:-1].inv() * turns[1:]).as_rotvec() / step_M1
    velocity_M3 = np.diff(centre_N3, axis=0) / step_M1
    root_K1 = np.sqrt(0.5 * (step_M1[1:] + step_M1[:-1]))
    change_K6 = (
        np.concatenate((np.diff(rate_M3, axis=0) / sigma_2[1], np.diff(velocity_M3, axis=0) / sigma_2[0]), 1) / root_K1
    )
    # Rotation and centre each on its own: a gimbal that turns is no change of course.
    motion = [_robust(part_K3, _MOTION_SCALE) for part_K3 in (change_K6[:, :3], change_K6[:, 3:])]
    return np.concatenate((answer_N6.ravel(), np.concatenate(motion, 1).ravel()))


def _robust(residual_NK: np.ndarray, scale: float) -> np.ndarray:
    """Residual vectors shortened such that their squares are Cauchy's cost: scale^2 log(1 + |r|^2 / scale^2)."""
    ratio_N1 = (residual_NK**2).sum(1, keepdims=True) / scale**2
    factor_N1 = np.sqrt(np.divide(np.log1p(ratio_N1), ratio_N1, out=np.ones_like(ratio_N1), where=ratio_N1 > 1e-12))
    return residual_NK * factor_N1


def _sparsity(count: int) -> lil_matrix:
    """Which parameters [6 N] each residual depends on."""
    pattern = lil_matrix((6 * count + 6 * (count - 2), 6 * count), dtype=np.int8)
    for index in range(count):
        pattern[6 * index : 6 * index + 6, 6 * index : 6 * index + 6] = 1
    for index in range(count - 2):
        row = 6 * count + 6 * index
        pattern[row : row + 6, 6 * index : 6 * index + 18] = 1
    return pattern


def _covariances(jacobian: csr_matrix, count: int) -> np.ndarray:
    """Blocks [N, 6, 6] on the diagonal of the inverse normal matrix."""
    normal = (jacobian.T @ jacobian).tocsc()
    # A residual far out has no slope left; what nothing holds must not make the matrix singular.
    normal = (
        normal + csr_matrix((np.full(6 * count, 1e-9), (range(6 * count), range(6 * count))), shape=normal.shape).tocsc()
    )
    solver = splu(normal)
    blocks = np.empty((count, 6, 6))
    for index in range(count):
        unit = np.zeros((6 * count, 6))
        unit[6 * index : 6 * index + 6] = np.eye(6)
        block_66 = solver.solve(unit)[6 * index : 6 * index + 6]
        blocks[index] = 0.5 * (block_66 + block_66.T)
    return blocks
