"""Small scenes and answers of known geometry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rasterio.crs import CRS

from datagen.rasters import Grid
from datagen.scene import GeoScene
from datagen.sections import frame_of
from datagen.texture import Texture
from geometry.attitude import enu_from_camera
from localization.answer import Answer

SIZE = 400.0


def make_scene(height=lambda x, y: 0 * x, *, code: str = "EPSG:32632", origin=(600_000.0, 5_137_000.0, 500.0)) -> GeoScene:
    """400 x 400 m around the world's origin; UTM 32N at 600 km east is 100 km off its central meridian."""
    grid = Grid(-SIZE / 2, SIZE / 2, 1.0, 1.0, 400, 400)
    x = grid.left + 0.5 + np.arange(400)
    heights = np.broadcast_to(height(x[None], x[::-1, None]), (400, 400)).astype(np.float32)
    colour = np.random.default_rng(0).integers(0, 255, (400, 400, 3)).astype(np.uint8)
    return GeoScene(CRS.from_user_input(code), origin, grid, heights, grid, Texture(colour), None)


def make_answer(name="a.jpg", *, yaw=0.0, pitch=-90.0, roll=0.0, position=(0.0, 0.0, 100.0), **changes) -> Answer:
    """A 600 x 400 photo at f = 500; the scene's axes are east, north, up."""
    pose_44 = np.eye(4)
    pose_44[:3, :3] = enu_from_camera(yaw, pitch, roll)
    pose_44[:3, 3] = position
    answer = Answer(
        name=name, world_from_cam_44=pose_44, K_33=np.array([[500.0, 0, 300], [0, 500, 200], [0, 0, 1]]),
        size_wh=(600, 400), verdict="ok", confidence=0.9, covariance_66=np.diag([1e-4] * 3 + [0.04, 0.09, 0.25]),
        inlier_share=0.8, score=50.0, sigma=0.4, stage="coarse", seconds=0.1,
    )  # fmt: skip
    return replace(answer, **changes)


def failed_answer(name="failed.jpg") -> Answer:
    return make_answer(
        name, verdict="failed", confidence=0.0, covariance_66=np.full((6, 6), np.inf), world_from_cam_44=np.eye(4)
    )


@pytest.fixture(scope="session")
def flat() -> GeoScene:
    return make_scene()


@pytest.fixture(scope="session")
def flat_frame(flat) -> dict:
    return frame_of(flat)
