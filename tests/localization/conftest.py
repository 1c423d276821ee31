"""A landscape, surveyed in summer and photographed in autumn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from datagen.cameras import centred_intrinsics
from datagen.demo.camera_effects import photograph
from datagen.demo.settings import FLOWN, SURVEYED, CameraEffects, WorldSettings
from datagen.demo.world import GeodataPaths, make_world, write_world
from datagen.render import Renderer
from datagen.scene import GeoScene
from datagen.sections import frame_of
from geometry.attitude import enu_from_camera

WORLD = WorldSettings(texel_m=0.45, surface_factor=3)
WIDTH, HEIGHT, FOCAL = 240, 160, 160.0


@dataclass(frozen=True)
class Landscape:
    """Geodata files of the survey, the frame of its scene, and what a drone saw months later."""

    surface: Path
    ortho: Path
    frame: dict
    surveyed: GeoScene
    flown: Renderer

    K_33 = centred_intrinsics(FOCAL, WIDTH, HEIGHT)

    def photo(self, world_from_cam_44: np.ndarray, seed: int = 0) -> np.ndarray:
        """uint8 RGB [HEIGHT, WIDTH, 3]."""
        view = self.flown.render(world_from_cam_44, self.K_33, WIDTH, HEIGHT)
        return photograph(view.rgb_HW3, CameraEffects(), 1.0, np.random.default_rng(seed))


@pytest.fixture(scope="session")
def landscape(tmp_path_factory) -> Landscape:
    folder = tmp_path_factory.mktemp("landscape")
    paths = [GeodataPaths.under(folder, name) for name in ("surveyed", "flown")]
    for season, path in zip((SURVEYED, FLOWN), paths, strict=True):
        write_world(make_world(WORLD, season, 5), WORLD, path)
    surveyed = GeoScene.open(paths[0].surface, paths[0].ortho)
    flown = GeoScene.open(paths[1].surface, paths[1].ortho, origin_xyz=surveyed.origin_xyz)
    return Landscape(paths[0].surface, paths[0].ortho, frame_of(surveyed), surveyed, Renderer(flown))


def pose(landscape: Landscape, x: float, y: float, yaw: float = 90.0, pitch: float = -75.0) -> np.ndarray:
    """A camera 110 m above the ground, [4, 4]."""
    world_from_cam_44 = np.eye(4)
    world_from_cam_44[:3, :3] = enu_from_camera(yaw, pitch, 1.0)
    world_from_cam_44[:3, 3] = x, y, landscape.surveyed.height_at(x, y)[0] + 110.0
    return world_from_cam_44


def moved(world_from_cam_44: np.ndarray, metres: float, degrees: float, seed: int) -> np.ndarray:
    """A pose that is off by so much, in random directions."""
    rng = np.random.default_rng(seed)
    shift_3, axis_3 = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    wrong_44 = world_from_cam_44.copy()
    wrong_44[:3, :3] = world_from_cam_44[:3, :3] @ cv2.Rodrigues(np.deg2rad(degrees) * axis_3)[0]
    wrong_44[:3, 3] += metres * shift_3
    return wrong_44
