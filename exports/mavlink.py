"""Answers as a MAVLink log (tlog): GLOBAL_POSITION_SENSOR from vision, ODOMETRY and VISION_POSITION_ESTIMATE.

The local frame is north-east-down about the scene's origin, aligned with true north at that origin (MAV_FRAME_LOCAL_NED);
without a place on Earth it is turned like the scene's own axes, which no north is known for (MAV_FRAME_LOCAL_FRD). The body
is the camera: x along the optical axis, y to the right of the image, z down in it. A receiver whose camera is mounted
otherwise turns by the mount. Covariances are of (north, east, down, small rotation about the body's x, y, z): MAVLink's
roll, pitch, yaw, which as Euler angles would have none for a camera that looks straight down.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from exports.covariances import position_then_rotation, upper_triangle
from exports.georeference import Georeference
from exports.times import times_s
from geometry.attitude import ned_from_body, yaw_pitch_roll_from_enu_camera
from localization.answer import Answer
from records.files import replacing

SYSTEM = 1
_NED_FROM_ENU = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
# Body (forward, right, down) from camera axes (right, down, forward).
_BODY_FROM_CAMERA = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def write_mavlink(answers: Sequence[Answer], georeference: Georeference | None, path: Path) -> None:
    """Writes a log; photos without a pose are left out, and GLOBAL_POSITION_SENSOR without a place on Earth.

    Raises:
        ValueError: the optional package is missing, or no photo has a pose.
    """
    dialect = _dialect()
    found = [answer for answer in answers if answer.success]
    if not found:
        raise ValueError("no photo has a pose: there is nothing to put into a MAVLink log")
    link = dialect.MAVLink(None, srcSystem=SYSTEM, srcComponent=dialect.MAV_COMP_ID_VISUAL_INERTIAL_ODOMETRY)
    ned_from_world_33 = _NED_FROM_ENU @ (np.eye(3) if georeference is None else georeference.enu_from_world(np.zeros(3)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as log:
        for seconds, answer in sorted(zip(times_s(found), found, strict=True), key=lambda pair: pair[0]):
            time_us = round(seconds * 1e6)
            messages = [*_local(dialect, answer, ned_from_world_33, georeference is not None, time_us)]
            if georeference is not None:
                messages.insert(0, _global(dialect, answer, georeference, time_us))
            for message in messages:
                log.write(struct.pack(">Q", time_us) + message.pack(link))


def check_installed() -> None:
    """Raises ValueError when the optional package is missing or too old."""
    _dialect()


def _dialect() -> ModuleType:
    # Read when the package is imported: without it floats at a message's end would be cut off as in version 1.
    os.environ.setdefault("MAVLINK20", "1")
    try:
        from pymavlink.dialects.v20 import common
    except ImportError:
        raise ValueError("a MAVLink log needs the optional package pymavlink (setup/requirements-extras.txt)") from None
    if not hasattr(common, "MAVLink_global_position_sensor_message"):
        raise ValueError("this pymavlink does not know GLOBAL_POSITION_SENSOR yet: install version 2.4.50 or later")
    return common


def _global(dialect: ModuleType, answer: Answer, georeference: Georeference, time_us: int) -> Any:
    position_3 = answer.world_from_cam_44[:3, 3]
    lon, lat, height = georeference.lonlat_height(position_3)[0]
    known = np.isfinite(answer.covariance_66).all()
    variance_3 = np.diag(answer.covariance_66)[3:]
    return dialect.MAVLink_global_position_sensor_message(
        target_system=0,
        target_component=0,
        id=0,
        time_usec=time_us,
        processing_time=round(answer.seconds * 1e6),
        source=dialect.GLOBAL_POSITION_SRC_VISION,
        flags=0,
        lat=round(lat * 1e7),
        lon=round(lon * 1e7),
        # Which of the two a height is, the surface model says or nobody.
        alt_ellipsoid=height if georeference.ellipsoidal else math.nan,
        alt=height if georeference.ellipsoidal is False else math.nan,
        eph=float(np.sqrt(variance_3[:2].sum())) if known else math.nan,
        epv=float(np.sqrt(variance_3[2])) if known else math.nan,
    )


def _local(dialect: ModuleType, answer: Answer, ned_from_world_33: np.ndarray, has_north: bool, time_us: int) -> list[Any]:
    x, y, z = (float(value) for value in ned_from_world_33 @ answer.world_from_cam_44[:3, 3])
    enu_from_camera_33 = _NED_FROM_ENU.T @ ned_from_world_33 @ answer.world_from_cam_44[:3, :3]
    yaw, pitch, roll = yaw_pitch_roll_from_enu_camera(enu_from_camera_33)
    qx, qy, qz, qw = (float(value) for value in Rotation.from_matrix(ned_from_body(yaw, pitch, roll)).as_quat())
    covariance_21 = [math.nan] + [0.0] * 20  # how MAVLink says that it is not known
    if np.isfinite(answer.covariance_66).all():
        covariance_21 = upper_triangle(position_then_rotation(answer.covariance_66, ned_from_world_33, _BODY_FROM_CAMERA))
    odometry = dialect.MAVLink_odometry_message(
        time_usec=time_us,
        frame_id=dialect.MAV_FRAME_LOCAL_NED if has_north else dialect.MAV_FRAME_LOCAL_FRD,
        child_frame_id=dialect.MAV_FRAME_BODY_FRD,
        x=x,
        y=y,
        z=z,
        q=[qw, qx, qy, qz],
        vx=math.nan,
        vy=math.nan,
        vz=math.nan,
        rollspeed=math.nan,
        pitchspeed=math.nan,
        yawspeed=math.nan,
        pose_covariance=covariance_21,
        velocity_covariance=[math.nan] + [0.0] * 20,
        reset_counter=0,
        estimator_type=dialect.MAV_ESTIMATOR_TYPE_VISION,
        quality=0 if answer.confidence is None else max(1, round(100 * answer.confidence)),  # 0 is unknown, 1 the worst
    )
    estimate = dialect.MAVLink_vision_position_estimate_message(
        usec=time_us,
        x=x,
        y=y,
        z=z,
        roll=math.radians(roll),
        pitch=math.radians(pitch),
        yaw=math.radians(yaw),
        covariance=covariance_21,
        reset_counter=0,
    )
    return [odometry, estimate]
