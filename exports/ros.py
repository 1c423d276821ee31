"""Answers as a ROS 2 bag, without ROS: nav_msgs/Odometry and, with a place on Earth, sensor_msgs/NavSatFix.

Odometry is the pose of the frame `camera_optical` (x right, y down, z forward; REP 103) in the frame `map`, whose axes are
the scene's local ones (grid east, grid north, up, metres). Its covariance is of (x, y, z, rotation about the map's X, Y, Z),
as ROS wants it. NavSatFix is WGS 84; its covariance is along true east, north and up; its altitude is not a number unless
heights are known to be above the ellipsoid.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from exports.covariances import position_then_rotation
from exports.georeference import Georeference
from exports.times import times_s
from localization.answer import Answer

MAP_FRAME, CAMERA_FRAME = "map", "camera_optical"
ODOMETRY_TOPIC, FIX_TOPIC = "/crossloc/odometry", "/crossloc/fix"
# What is not known: large enough that a filter makes nothing of it. ROS has no word for it in these messages.
UNKNOWN_VARIANCE = 1e9
_BAG_VERSION = 8  # what Humble reads, and all later ones


def write_ros_bag(answers: Sequence[Answer], georeference: Georeference | None, folder: Path) -> None:
    """Writes a bag folder; photos without a pose are left out.

    Raises:
        ValueError: the optional package is missing, or no photo has a pose.
        FileExistsError: the folder is there.
    """
    check_installed()
    from rosbags.rosbag2 import Writer
    from rosbags.typesys import Stores, get_typestore

    found = [answer for answer in answers if answer.success]
    if not found:
        raise ValueError("no photo has a pose: there is nothing to put into a bag")
    if folder.exists():
        raise FileExistsError(f"already there: {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    store = get_typestore(Stores.ROS2_HUMBLE)
    temporary = folder.with_name(f".part-{uuid.uuid4().hex[:8]}-{folder.name}")
    try:
        with Writer(temporary, version=_BAG_VERSION) as bag:
            odometry = bag.add_connection(ODOMETRY_TOPIC, "nav_msgs/msg/Odometry", typestore=store)
            fix = None
            if georeference is not None:
                fix = bag.add_connection(FIX_TOPIC, "sensor_msgs/msg/NavSatFix", typestore=store)
            for seconds, answer in sorted(zip(times_s(found), found, strict=True), key=lambda pair: pair[0]):
                stamp_ns = round(seconds * 1e6) * 1000  # a float holds no nanoseconds of today's times
                message = _odometry(store.types, answer, stamp_ns)
                bag.write(odometry, stamp_ns, store.serialize_cdr(message, odometry.msgtype))
                if fix is not None:
                    message = _fix(store.types, answer, georeference, stamp_ns)
                    bag.write(fix, stamp_ns, store.serialize_cdr(message, fix.msgtype))
        # The bag names its file after its folder.
        _renamed(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_installed() -> None:
    """Raises ValueError when the optional package is missing."""
    if importlib.util.find_spec("rosbags") is None:
        raise ValueError("a ROS 2 bag needs the optional package rosbags (setup/requirements-extras.txt)")


def _renamed(temporary: Path, folder: Path) -> None:
    """Gives the finished bag its name, in its index too."""
    index = temporary / "metadata.yaml"
    index.write_text(index.read_text().replace(temporary.name, folder.name))
    for file in temporary.glob(f"{temporary.name}*"):
        file.rename(file.with_name(file.name.replace(temporary.name, folder.name)))
    temporary.rename(folder)


def _header(types: dict[str, Any], stamp_ns: int, frame: str) -> Any:
    time = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return types["std_msgs/msg/Header"](stamp=time, frame_id=frame)


def _odometry(types: dict[str, Any], answer: Answer, stamp_ns: int) -> Any:
    R_33 = answer.world_from_cam_44[:3, :3]
    x, y, z = (float(value) for value in answer.world_from_cam_44[:3, 3])
    qx, qy, qz, qw = (float(value) for value in Rotation.from_matrix(R_33).as_quat())
    unknown_66 = np.eye(6) * UNKNOWN_VARIANCE
    known = np.isfinite(answer.covariance_66).all()
    covariance_66 = position_then_rotation(answer.covariance_66, np.eye(3), R_33) if known else unknown_66
    pose = types["geometry_msgs/msg/Pose"](
        position=types["geometry_msgs/msg/Point"](x=x, y=y, z=z),
        orientation=types["geometry_msgs/msg/Quaternion"](x=qx, y=qy, z=qz, w=qw),
    )
    none = types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
    return types["nav_msgs/msg/Odometry"](
        header=_header(types, stamp_ns, MAP_FRAME),
        child_frame_id=CAMERA_FRAME,
        pose=types["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=covariance_66.ravel()),
        twist=types["geometry_msgs/msg/TwistWithCovariance"](
            twist=types["geometry_msgs/msg/Twist"](linear=none, angular=none), covariance=unknown_66.ravel()
        ),
    )


def _fix(types: dict[str, Any], answer: Answer, georeference: Georeference, stamp_ns: int) -> Any:
    fix, status = types["sensor_msgs/msg/NavSatFix"], types["sensor_msgs/msg/NavSatStatus"]
    position_3 = answer.world_from_cam_44[:3, 3]
    lon, lat, height = (float(value) for value in georeference.lonlat_height(position_3)[0])
    known = np.isfinite(answer.covariance_66).all()
    R_33 = georeference.enu_from_world(position_3)
    covariance_33 = R_33 @ answer.covariance_66[3:, 3:] @ R_33.T if known else np.eye(3) * UNKNOWN_VARIANCE
    return fix(
        header=_header(types, stamp_ns, CAMERA_FRAME),
        status=status(status=status.STATUS_FIX, service=0),  # by no satellite system
        latitude=lat,
        longitude=lon,
        altitude=height if georeference.ellipsoidal else math.nan,
        position_covariance=covariance_33.ravel(),
        position_covariance_type=fix.COVARIANCE_TYPE_KNOWN if known else fix.COVARIANCE_TYPE_UNKNOWN,
    )
