"""Aircraft attitude (yaw, pitch, roll) to camera rotations. numpy, float64.

The camera is fixed to the body: it looks along body x (forward), its image x is body y (right), its image y is body z
(down). pitch = -90 deg looks straight down, yaw is the heading clockwise from north.
"""

from __future__ import annotations

import numpy as np

# Columns of a body (forward, right, down) rotation reordered to camera axes (right, down, forward).
_CAMERA_COLUMNS = [1, 2, 0]
_ENU_FROM_NED = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])


def ned_from_body(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """Rotation [3, 3] R_z(yaw) R_y(pitch) R_x(roll): body (forward, right, down) to north-east-down."""
    y, p, r = np.deg2rad([yaw_deg, pitch_deg, roll_deg])
    Rz = np.array([[np.cos(y), -np.sin(y), 0], [np.sin(y), np.cos(y), 0], [0, 0, 1]])
    Ry = np.array([[np.cos(p), 0, np.sin(p)], [0, 1, 0], [-np.sin(p), 0, np.cos(p)]])
    Rx = np.array([[1, 0, 0], [0, np.cos(r), -np.sin(r)], [0, np.sin(r), np.cos(r)]])
    return Rz @ Ry @ Rx


def enu_from_camera(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """Camera-to-world rotation [3, 3] in an east-north-up world, OpenCV camera axes."""
    return (_ENU_FROM_NED @ ned_from_body(yaw_deg, pitch_deg, roll_deg))[:, _CAMERA_COLUMNS]


def yaw_pitch_roll_from_enu_camera(R_33: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch, roll in degrees of a camera-to-world rotation in an east-north-up world.

    Straight down (pitch -90) leaves yaw and roll undetermined; roll is then 0 and yaw the heading of the image's top.
    """
    body = np.empty((3, 3))
    body[:, _CAMERA_COLUMNS] = R_33
    R = _ENU_FROM_NED.T @ body
    pitch = np.arctan2(-R[2, 0], np.hypot(R[0, 0], R[1, 0]))
    if np.hypot(R[0, 0], R[1, 0]) < 1e-9:
        yaw, roll = np.arctan2(-R[0, 1], R[1, 1]), 0.0
    else:
        yaw, roll = np.arctan2(R[1, 0], R[0, 0]), np.arctan2(R[2, 1], R[2, 2])
    return float(np.rad2deg(yaw)), float(np.rad2deg(pitch)), float(np.rad2deg(roll))
