"""Answers as a COLMAP text model: world-to-camera poses of pinhole cameras, without points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scipy.spatial.transform import Rotation

from localization.answer import Answer
from records.files import replacing


def write_colmap(answers: Sequence[Answer], folder: Path) -> None:
    """Writes cameras.txt, images.txt and an empty points3D.txt; photos without a pose are left out.

    Quaternions and translations lead from the world (the scene's local frame) to the camera; one PINHOLE camera for all
    photos of the same size and intrinsics.
    """
    cameras: dict[tuple, int] = {}
    images = []
    for answer in answers:
        if not answer.success:
            continue
        K_33 = answer.K_33
        key = (*answer.size_wh, K_33[0, 0], K_33[1, 1], K_33[0, 2], K_33[1, 2])
        camera = cameras.setdefault(key, len(cameras) + 1)
        R_33 = answer.world_from_cam_44[:3, :3].T
        t_3 = -R_33 @ answer.world_from_cam_44[:3, 3]
        qx, qy, qz, qw = Rotation.from_matrix(R_33).as_quat()
        numbers = " ".join(f"{value:.17g}" for value in (qw, qx, qy, qz, *t_3))
        images.append(f"{len(images) + 1} {numbers} {camera} {answer.name}\n\n")
    lines = [
        f"{number} PINHOLE {width} {height} {' '.join(f'{value:.17g}' for value in intrinsics)}\n"
        for (width, height, *intrinsics), number in cameras.items()
    ]
    _write(folder / "cameras.txt", "# CAMERA_ID, MODEL, WIDTH, HEIGHT, FX, FY, CX, CY\n" + "".join(lines))
    header = "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ (world to camera), CAMERA_ID, NAME; the second line would hold points\n"
    _write(folder / "images.txt", header + "".join(images))
    _write(folder / "points3D.txt", "# none: the poses come from the map, not from matched photos\n")


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
