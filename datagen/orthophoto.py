"""An orthophoto from photos: every ground pixel takes the colour of the photos that see it best, blended softly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.errors import RasterioError
from tqdm import tqdm

from datagen.cameras import Camera
from datagen.dense_surface import project
from datagen.rasters import Grid
from datagen.raycast import RayCaster
from datagen.render import pixel_directions

# Tag of an orthophoto's file: the stems of the photos whose pixels it holds, one a line.
PHOTOS_TAG = "PHOTOS"
# Longer side of the depth maps that tell what is hidden, pixels.
_DEPTH_PIXELS = 480
# A point counts as hidden when the surface is nearer by more than this share of the depth (and two cells).
_HIDDEN_SHARE = 0.01
# What no photo shows takes the colour of what hides it, which is better than none: leaves for leaves.
_HIDDEN_WEIGHT = 1e-6
# The steeper view wins, and softly near equality, so that seams do not show and nothing is averaged to mush.
_SHARPNESS = 24
_BORDER_SHARE = 0.08
# Rows that are blended at once.
_STRIP = 512


def photos_in(path: Path) -> set[str]:
    """Stems of the photos whose pixels an orthophoto holds, as its file says; empty where it does not say."""
    try:
        with rasterio.open(path) as raster:
            return set(raster.tags().get(PHOTOS_TAG, "").split("\n")) - {""}
    except RasterioError:
        return set()  # its reader will say what is wrong with it


def blended_orthophoto(
    grid: Grid,
    surface_grid: Grid,
    heights_rc: np.ndarray,
    raycaster: RayCaster,
    cameras: Sequence[Camera],
    read_rgb: Callable[[Camera], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Colour uint8 [rows, cols, 3] and where some photo shows the ground, bool [rows, cols].

    Args:
        grid: pixels of the orthophoto. surface_grid, heights_rc: the surface, NaN in holes. raycaster: its mesh.
        cameras: pinhole cameras of the photos that may be used. read_rgb: their pictures, uint8 [H, W, 3].
    """
    total_RC3, weight_RC = np.zeros((grid.rows, grid.cols, 3), np.float32), np.zeros((grid.rows, grid.cols), np.float32)
    for camera in tqdm(cameras, desc="orthophoto", unit="photo"):
        rgb_HW3, depth_HW = read_rgb(camera), _depth_map(camera, raycaster)
        for row in range(0, grid.rows, _STRIP):
            strip = slice(row, min(row + _STRIP, grid.rows))
            points_N3 = _ground_points(grid.part(row, 0, strip.stop - row, grid.cols), surface_grid, heights_rc)
            which, colour_N3, weight_N = _contribution(points_N3, camera, rgb_HW3, depth_HW, surface_grid.step_x)
            total_RC3[strip].reshape(-1, 3)[which] += colour_N3 * weight_N[:, None]
            weight_RC[strip].reshape(-1)[which] += weight_N
    seen_RC = weight_RC > 0
    colour_RC3 = total_RC3 / np.maximum(weight_RC, np.float32(1e-30))[..., None]
    return np.clip(np.rint(colour_RC3), 0, 255).astype(np.uint8) * seen_RC[..., None], seen_RC


def _ground_points(grid: Grid, surface_grid: Grid, heights_rc: np.ndarray) -> np.ndarray:
    """Points float64 [N, 3] of the surface at the centres of a grid's pixels, row by row; z is NaN in holes."""
    x_c = grid.left + (np.arange(grid.cols) + 0.5) * grid.step_x
    y_r = grid.top - (np.arange(grid.rows) + 0.5) * grid.step_y
    x_rc, y_rc = np.meshgrid(x_c, y_r)
    map_x, map_y = (a.astype(np.float32) for a in (surface_grid.columns(x_rc) - 0.5, surface_grid.rows_of(y_rc) - 0.5))
    z_rc = cv2.remap(heights_rc, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.stack((x_rc.ravel(), y_rc.ravel(), z_rc.ravel().astype(np.float64)), 1)


def _depth_map(camera: Camera, raycaster: RayCaster) -> np.ndarray:
    """Depth float32 of the surface in a small version of a photo; +inf where the surface ends."""
    scale = min(1.0, _DEPTH_PIXELS / max(camera.width, camera.height))
    width, height = max(1, round(camera.width * scale)), max(1, round(camera.height * scale))
    x = np.tile((np.arange(width) + 0.5) * (camera.width / width), height)
    y = np.repeat((np.arange(height) + 0.5) * (camera.height / height), width)
    direction_N3 = pixel_directions(camera.world_from_cam_44, camera.K_33, x, y)
    origin_N3 = np.broadcast_to(camera.world_from_cam_44[:3, 3].astype(np.float32), direction_N3.shape)
    depth_HW = raycaster.cast(origin_N3, direction_N3).t_N.reshape(height, width).astype(np.float32)
    # The farthest of the neighbours: an edge between two pixels hides nothing by itself.
    finite_HW = np.where(np.isfinite(depth_HW), depth_HW, np.float32(1e9))
    return cv2.dilate(finite_HW, np.ones((3, 3), np.uint8))


def _contribution(
    points_N3: np.ndarray, camera: Camera, rgb_HW3: np.ndarray, depth_HW: np.ndarray, cell_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices [M] of the points that a photo shows, its colours float32 [M, 3] there and their weights float32 [M]."""
    which = np.flatnonzero(np.isfinite(points_N3[:, 2]))
    pixel_M2, depth_M = project(camera, points_N3[which])
    size_2 = np.array((camera.width, camera.height))
    border_M = np.minimum(pixel_M2, size_2 - pixel_M2).min(axis=1) / size_2.min()
    inside_M = (border_M > 0) & (depth_M > 0)
    which, pixel_M2, depth_M, border_M = (a[inside_M] for a in (which, pixel_M2, depth_M, border_M))
    map_rows, map_cols = depth_HW.shape
    r = np.clip(pixel_M2[:, 1] * map_rows / camera.height, 0, map_rows - 1).astype(int)
    c = np.clip(pixel_M2[:, 0] * map_cols / camera.width, 0, map_cols - 1).astype(int)
    visible_M = depth_M <= depth_HW[r, c] + np.maximum(_HIDDEN_SHARE * depth_M, 2 * cell_m)
    ray_M3 = points_N3[which] - camera.world_from_cam_44[:3, 3]
    steep_M = np.clip(-ray_M3[:, 2], 0, None) / np.maximum(np.linalg.norm(ray_M3, axis=1), 1e-9)
    weight_M = steep_M**_SHARPNESS * np.minimum(border_M / _BORDER_SHARE, 1) * np.where(visible_M, 1, _HIDDEN_WEIGHT)
    return which, _sampled(rgb_HW3, pixel_M2), weight_M.astype(np.float32)


def _sampled(rgb_HW3: np.ndarray, pixel_N2: np.ndarray) -> np.ndarray:
    """Bilinear colour float32 [N, 3] at continuous pixels."""
    if len(pixel_N2) == 0:
        return np.zeros((0, 3), np.float32)
    columns = 1024
    rows = -(-len(pixel_N2) // columns)
    padded = np.zeros((rows * columns, 2), np.float32)
    padded[: len(pixel_N2)] = pixel_N2 - 0.5
    sampled = cv2.remap(rgb_HW3, padded.reshape(rows, columns, 2), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled.reshape(-1, 3)[: len(pixel_N2)].astype(np.float32)
