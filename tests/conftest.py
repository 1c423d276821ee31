"""Fixtures: the sample photos, and small analytic sections that need no renderer."""

from __future__ import annotations

import math
import os
from pathlib import Path

from threads import configure_threads

configure_threads()  # as the commands do: results do not depend on the number of cores

import cv2
import numpy as np
import pytest
import torch

from geometry.attitude import enu_from_camera
from geometry.cameras import intrinsics_matrix, pixel_rays
from geometry.grid import NODATA, STRIDE, cell_centres, grid_size

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def brighton_beach() -> Path:
    """Folder of the Brighton Beach photos; skips where they are not available."""
    folder = Path(os.environ.get("BRIGHTON_BEACH_DIR") or ROOT.parent / "shared" / "data" / "brighton_beach")
    if not (folder / "cameras.json").is_file():
        pytest.skip(f"the Brighton Beach photos are not at {folder} (set BRIGHTON_BEACH_DIR)")
    return folder


def _plane_colour(p_3N: np.ndarray) -> np.ndarray:
    """A smooth texture painted on the ground, uint8 [N, 3]."""
    x, y = p_3N[0], p_3N[1]
    waves = [np.sin(x / 7 + 2 * np.sin(y / 23)), np.sin(y / 9 - x / 31), np.sin((x + y) / 13) * np.cos(x / 5)]
    return np.clip(127 + 110 * np.stack(waves, 1), 0, 255).astype(np.uint8)


def _plane_hits(world_from_cam_44: torch.Tensor, K_33: torch.Tensor, xy_px_2N: torch.Tensor):
    """Points [3, N] and depths [N] where rays meet the slanted ground z = 0.1 x; all rays must go down."""
    normal_3 = torch.tensor([-0.1, 0.0, 1.0], dtype=torch.float64)
    rays_3N = pixel_rays(K_33[None], xy_px_2N)[0]
    world_rays_3N = world_from_cam_44[:3, :3] @ rays_3N
    depth_N = -(normal_3 @ world_from_cam_44[:3, 3]) / (normal_3 @ world_rays_3N)
    return world_from_cam_44[:3, 3:] + world_rays_3N * depth_N, depth_N


def write_plane_section(
    section: Path,
    count: int,
    *,
    height: int = 64,
    width: int = 96,
    focal: float = 64.0,
    seed: int = 0,
    calibration: str = "",
    sky_rows: int = 0,
    stride: int = STRIDE,
) -> None:
    """Writes a complete section: views of a slanted textured plane with exact labels.

    Args:
        calibration: text of the calibration files (default: the focal length).
        sky_rows: top rows of every label that are nodata, cells.
        stride: pixels per cell of coordinates, depths and normals: 8, or 1 for full-size labels.
    """
    rng = np.random.default_rng(seed)
    for name in ("rgb", "poses", "calibration", "init", "depth", "normal", "semantics"):
        (section / name).mkdir(parents=True, exist_ok=True)
    numbers = [float(v) for v in calibration.split()] or [focal]
    fx, fy, cx, cy = numbers if len(numbers) == 4 else (focal, focal, width / 2, height / 2)
    K_33 = intrinsics_matrix(fx, fy, cx, cy)
    h, w = grid_size(height, width, stride)
    rows, columns = np.mgrid[:height, :width] + 0.5
    pixels_2N = torch.from_numpy(np.stack((columns.ravel(), rows.ravel())))
    for index in range(count):
        pose_44 = torch.eye(4, dtype=torch.float64)
        yaw, pitch = rng.uniform(-180, 180), rng.uniform(-90, -70)
        pose_44[:3, :3] = torch.from_numpy(enu_from_camera(yaw, pitch, rng.uniform(-3, 3)))
        pose_44[:3, 3] = torch.from_numpy(np.array([*rng.uniform(-40, 40, 2), rng.uniform(70, 90)]))
        points_3N, _ = _plane_hits(pose_44, K_33, pixels_2N)
        image = _plane_colour(points_3N.numpy()).reshape(height, width, 3)
        coords_3N, depth_N = _plane_hits(pose_44, K_33, cell_centres(h, w, stride, dtype=torch.float64).flatten(1))
        coords, depth = coords_3N.reshape(3, h, w).float(), depth_N.reshape(h, w).float()
        up_3 = torch.tensor([-0.1, 0.0, 1.0], dtype=torch.float64) / math.hypot(0.1, 1.0)
        normal = (pose_44[:3, :3].T @ up_3).float()[:, None, None].expand(3, h, w).clone()
        semantics = np.full((height, width), 2, np.uint8)
        semantics[:, width // 2 :] = 9
        coords[:, :sky_rows], depth[:sky_rows], normal[:, :sky_rows] = NODATA, NODATA, NODATA
        semantics[: stride * sky_rows] = 0
        stem = f"view_{index:03d}"
        cv2.imwrite(str(section / "rgb" / f"{stem}.png"), image[..., ::-1])
        np.savetxt(section / "poses" / f"{stem}.txt", pose_44.numpy())
        (section / "calibration" / f"{stem}.txt").write_text(f"{calibration or focal}\n")
        torch.save(coords, section / "init" / f"{stem}.dat")
        torch.save(depth, section / "depth" / f"{stem}.dat")
        torch.save(normal, section / "normal" / f"{stem}.dat")
        np.save(section / "semantics" / f"{stem}.npy", semantics)


@pytest.fixture
def plane_section(tmp_path):
    """Factory: `plane_section(count, **options)` writes and returns a section folder."""

    def make(count: int = 3, name: str = "scene/train_sim", **options) -> Path:
        write_plane_section(tmp_path / name, count, **options)
        return tmp_path / name

    return make
