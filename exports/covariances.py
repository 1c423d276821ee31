"""The covariance of an answer in the orders and axes that other systems expect."""

from __future__ import annotations

import numpy as np


def position_then_rotation(
    covariance_66: np.ndarray, axes_from_world_33: np.ndarray, axes_from_camera_33: np.ndarray
) -> np.ndarray:
    """Covariance [6, 6] of (position, small rotation) from an answer's, of (rotation in camera axes, position in the world).

    Args:
        axes_from_world_33: turns positions into the axes wanted. axes_from_camera_33: turns rotation vectors into the axes
            that they are wanted about.
    """
    J_66 = np.zeros((6, 6))
    J_66[:3, 3:] = axes_from_world_33
    J_66[3:, :3] = axes_from_camera_33
    return J_66 @ covariance_66 @ J_66.T


def upper_triangle(covariance_66: np.ndarray) -> list[float]:
    """The 21 numbers of MAVLink: rows of the upper right triangle."""
    return [float(value) for value in covariance_66[np.triu_indices(6)]]
