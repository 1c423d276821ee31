"""Smooth random fields, the raw material of relief and texture."""

from __future__ import annotations

import cv2
import numpy as np


def value_noise(rng: np.random.Generator, shape: tuple[int, int], cell_px: float) -> np.ndarray:
    """Random field of unit variance (about) with features of `cell_px` pixels.

    Args:
        rng: consumed by a number of draws that depends on shape and cell size alone.
        shape: rows, columns.
        cell_px: distance of the random nodes, in pixels; at most one node a pixel.
    Returns:
        float32 [rows, columns]
    """
    cell_px = max(float(cell_px), 1.0)
    rows, columns = (int(np.ceil(n / cell_px)) + 4 for n in shape)
    nodes = rng.standard_normal((rows, columns)).astype(np.float32)
    # resize, unlike remap, interpolates with exact weights: no steps where the cells are wide
    wide = cv2.resize(nodes, (round(columns * cell_px), round(rows * cell_px)), interpolation=cv2.INTER_CUBIC)
    skip = round(1.5 * cell_px)
    return 1.35 * wide[skip : skip + shape[0], skip : skip + shape[1]]


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell_px: float, octaves: int = 4, gain: float = 0.5
) -> np.ndarray:
    """Sum of `octaves` value noises, each half as wide and `gain` as high as the one before; unit variance (about)."""
    weights = gain ** np.arange(octaves)
    total = sum(w * value_noise(rng, shape, cell_px / 2**k) for k, w in enumerate(weights))
    return (total / np.linalg.norm(weights)).astype(np.float32)


def smoothstep(edge0: float, edge1: float, x: np.ndarray) -> np.ndarray:
    """0 below `edge0`, 1 above `edge1`, smooth between."""
    t = np.clip((x - edge0) / (edge1 - edge0), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
