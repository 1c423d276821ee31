"""Random walks of a camera through a preset's ranges: bounded in speed and turn, pulled from place to place, smoothed.

A walk wanders within the box of the ranges from a start on one of its faces (the bottom left out). An anchor, one of many
places and attitudes spread over the box, pulls it; on reaching it the next is drawn. A Savitzky-Golay filter takes the
jitter out at the end.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import savgol_filter

from datagen.flights import pose_of
from datagen.sampling import Preset, WalkLimits, ground_under, latin_hypercube
from datagen.scene import GeoScene

# Side of the grid of anchors.
_ANCHORS = 20
# How the next anchor is chosen: the farthest, the nearest, else any.
_FARTHEST, _NEAREST = 0.15, 0.15
# A step: this part of the limit at random, and this part of the way to the anchor.
_WANDER, _PULL = 0.25, 0.15
_TRIES = 100
_ORDER, _POSITION_WINDOW, _ANGLE_WINDOW = 6, 31, 11
_FACES = 5


def walks(preset: Preset, scene: GeoScene, seed: int) -> list[np.ndarray]:
    """Poses float64 [length, 4, 4] of every walk, world frame; NaN where there is no ground to be above.

    Args:
        preset: with `walk`.
    """
    limits, rng = preset.walk, np.random.default_rng(seed)
    low_6, high_6 = _box(preset, scene)
    free_yaw = high_6[3] - low_6[3] >= 360
    anchors_A6 = _anchors(low_6, high_6, rng)
    starts = _starts(low_6, high_6, limits.count, rng)
    chosen = rng.permutation(len(starts))[: limits.count]
    ground = ground_under(preset, scene)
    found = []
    for start_6 in starts[chosen]:
        state_L6 = _bounded(
            _smoothed(_wandered(start_6, low_6, high_6, limits, anchors_A6, free_yaw, rng)), low_6, high_6, limits, free_yaw
        )
        state_L6[:, 2] += ground(state_L6[:, 0], state_L6[:, 1])
        found.append(np.stack([pose_of(state[:3], state[3:]) for state in state_L6]))
    return found


def _box(preset: Preset, scene: GeoScene) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest x, y (world), height, yaw, pitch, roll."""
    (x_0, x_1), (y_0, y_1) = preset.horizontal
    if preset.geographic:
        x_4, y_4 = scene.lonlat_to_world(np.array([x_0, x_1, x_0, x_1]), np.array([y_0, y_0, y_1, y_1]))
    else:
        x_4, y_4 = np.array([x_0, x_1]) - scene.origin_xyz[0], np.array([y_0, y_1]) - scene.origin_xyz[1]
    ranges = [(x_4.min(), x_4.max()), (y_4.min(), y_4.max()), preset.height, preset.yaw, preset.pitch, preset.roll]
    return tuple(np.array(ranges, np.float64).T)


def _anchors(low_6: np.ndarray, high_6: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[A, 6]: a grid of places with random attitudes."""
    unit = (np.arange(_ANCHORS) + 0.5) / _ANCHORS
    place_A3 = np.stack(np.meshgrid(unit, unit, unit, indexing="ij"), -1).reshape(-1, 3)
    return low_6 + np.concatenate((place_A3, rng.random(place_A3.shape)), 1) * (high_6 - low_6)


def _starts(low_6: np.ndarray, high_6: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """[S, 6]: spread over the four sides and the top of the box, attitudes at random."""
    per_face = max(2, -(-count // _FACES))
    starts = []
    for axis, end in ((0, 0.0), (0, 1.0), (1, 0.0), (1, 1.0), (2, 1.0)):
        unit = np.concatenate(
            (np.insert(latin_hypercube(per_face, 2, rng), axis, end, axis=1), rng.random((per_face, 3))), 1
        )
        starts.append(low_6 + unit * (high_6 - low_6))
    return np.concatenate(starts)


def _wandered(
    start_6, low_6, high_6, limits: WalkLimits, anchors_A6, free_yaw: bool, rng: np.random.Generator
) -> np.ndarray:
    """[L, 6]: yaw is not wrapped, so that it can be filtered."""
    limit_6 = np.array([*limits.translation, *limits.rotation])
    state_L6 = np.empty((limits.length, 6))
    state_L6[0] = start_6
    anchor_6 = _next_anchor(start_6, anchors_A6, rng, first=True)
    for k in range(1, limits.length):
        here_6 = state_L6[k - 1]
        way_6 = anchor_6 - here_6
        if free_yaw:
            way_6[3] = (way_6[3] + 180) % 360 - 180
        if (np.abs(way_6[:3]) <= limit_6[:3]).all():
            anchor_6 = _next_anchor(here_6, anchors_A6, rng)
        pull_6 = _PULL * np.clip(way_6, -limit_6, limit_6)
        for _ in range(_TRIES):
            step_6 = rng.choice([-1.0, 1.0], 6) * rng.uniform(0.5, 1, 6) * _WANDER * limit_6 + pull_6
            next_6 = here_6 + step_6
            out_6 = (next_6 < low_6) | (next_6 > high_6)
            out_6[3] &= not free_yaw
            if not out_6.any():
                break
        state_L6[k] = _clipped(next_6, low_6, high_6, free_yaw)
    return state_L6


def _next_anchor(here_6: np.ndarray, anchors_A6: np.ndarray, rng: np.random.Generator, *, first: bool = False) -> np.ndarray:
    draw = 0.0 if first else rng.random()
    if draw >= _FARTHEST + _NEAREST:
        return anchors_A6[rng.integers(len(anchors_A6))].copy()
    distance_A = np.linalg.norm(anchors_A6[:, :3] - here_6[:3], axis=1)
    if draw < _FARTHEST:
        return anchors_A6[distance_A.argmax()].copy()
    # The one at hand has just been reached.
    return anchors_A6[np.argsort(distance_A)[min(1, len(distance_A) - 1)]].copy()


def _clipped(state_6: np.ndarray, low_6: np.ndarray, high_6: np.ndarray, free_yaw: bool) -> np.ndarray:
    clipped_6 = np.clip(state_6, low_6, high_6)
    if free_yaw:
        clipped_6[3] = state_6[3]
    return clipped_6


def _smoothed(state_L6: np.ndarray) -> np.ndarray:
    smooth_L6 = state_L6.copy()
    for columns, window in ((slice(0, 3), _POSITION_WINDOW), (slice(3, 6), _ANGLE_WINDOW)):
        window = min(window, len(state_L6) - (len(state_L6) + 1) % 2)
        if window > 2:
            smooth_L6[:, columns] = savgol_filter(state_L6[:, columns], window, min(_ORDER, window - 1), axis=0)
    return smooth_L6


def _bounded(state_L6: np.ndarray, low_6, high_6, limits: WalkLimits, free_yaw: bool) -> np.ndarray:
    """Within the ranges and the limits again, which a polynomial may overshoot."""
    limit_6 = np.array([*limits.translation, *limits.rotation])
    bounded_L6 = np.empty_like(state_L6)
    bounded_L6[0] = _clipped(state_L6[0], low_6, high_6, free_yaw)
    for k in range(1, len(state_L6)):
        wanted_6 = _clipped(state_L6[k], low_6, high_6, free_yaw)
        bounded_L6[k] = bounded_L6[k - 1] + np.clip(wanted_6 - bounded_L6[k - 1], -limit_6, limit_6)
    return bounded_L6
