"""Labels from raw point maps. An index k of a raw map is the continuous pixel coordinate k, not k + 1/2 (see `on_grid`)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from geometry.grid import NODATA, STRIDES

# Points that a normal is fitted to, the point itself among them.
_NEIGHBOURS = 16
# Of full-size maps, so many normals at once.
_BLOCK = 1 << 15
# The raw data: images of 720 x 480 px at f = 480 px, or the same camera at another resolution.
_WIDTH_PX, _FOCAL_PX = 720, 480.0


def focal_px(width_px: int) -> float:
    """Focal length of the benchmark's camera in pixels of an image of that width."""
    return _FOCAL_PX * width_px / _WIDTH_PX


def on_grid(map_HWx: np.ndarray, stride: int) -> np.ndarray:
    """The samples of a raw map that are labels: rows and columns 4, 12, ... for stride 8, all for stride 1.

    A raw point was picked at the pixel's corner: index 4 is the ray through pixel coordinate 4. That is the centre of the
    first stride-8 cell, so coarse labels are exact as they are; full-size ones are the rays half a pixel up and left of
    their pixels' centres, which `calibration_text` makes good.
    """
    if stride not in STRIDES:
        raise ValueError(f"--stride must be one of {list(STRIDES)}, got {stride}")
    return map_HWx[stride // 2 :: stride, stride // 2 :: stride] if stride > 1 else map_HWx


def calibration_text(raw_width_px: int, width_px: int, height_px: int, stride: int) -> str:
    """Calibration file of an image that shows what a raw map of `raw_width_px` columns shows.

    Args:
        width_px, height_px: of the image as stored, which may be larger than the map.
        stride: pixels of the map per label cell; 1 moves the principal point by half a pixel of the map, with which labels
            project exactly onto the centres of their pixels.
    """
    focal = focal_px(width_px)
    if stride > 1:
        return f"{focal}\n"
    half = 0.5 * width_px / raw_width_px
    return f"{focal} {focal} {width_px / 2 + half} {height_px / 2 + half}\n"


def scene_coordinates(points_hw3: np.ndarray, origin_3: np.ndarray) -> np.ndarray:
    """Raw ECEF points minus the origin, float64 [3, h, w]; each element that is -1 stays so."""
    raw_3hw = points_hw3.astype(np.float64).transpose(2, 0, 1)
    return np.where(raw_3hw == NODATA, NODATA, raw_3hw - origin_3[:, None, None])


def camera_points(coords_3hw: np.ndarray, world_from_cam_44: np.ndarray) -> np.ndarray:
    """Scene coordinates in the camera frame, float64 [3, h, w]; meaningless where they are nodata."""
    centred_3N = coords_3hw.reshape(3, -1) - world_from_cam_44[:3, 3:]
    return (world_from_cam_44[:3, :3].T @ centred_3N).reshape(coords_3hw.shape)


def depths(coords_3hw: np.ndarray, p_cam_3hw: np.ndarray) -> np.ndarray:
    """z-buffer depths [h, w]; nodata where the first coordinate is."""
    return np.where(coords_3hw[0] == NODATA, NODATA, p_cam_3hw[2])


def normals(coords_3hw: np.ndarray, p_cam_3hw: np.ndarray) -> np.ndarray:
    """Unit normals [3, h, w] in the camera frame, oriented towards the camera; nodata where all coordinates are.

    The direction in which the 16 nearest points of each spread least.
    """
    valid_hw = ~(coords_3hw == NODATA).all(0)
    points_N3 = p_cam_3hw[:, valid_hw].T
    found_3hw = np.full(coords_3hw.shape, NODATA)
    if len(points_N3) < 3:
        return found_3hw
    tree = cKDTree(points_N3)
    blocks = np.split(points_N3, range(_BLOCK, len(points_N3), _BLOCK))
    found_3hw[:, valid_hw] = np.concatenate([_normals_at(block_M3, tree) for block_M3 in blocks]).T
    return found_3hw


def _normals_at(points_M3: np.ndarray, tree: cKDTree) -> np.ndarray:
    """Unit normals [M, 3] at some of the tree's points."""
    _, neighbours_Mk = tree.query(points_M3, k=min(_NEIGHBOURS, tree.n))
    offsets_Mk3 = tree.data[neighbours_Mk] - tree.data[neighbours_Mk].mean(1, keepdims=True)
    _, directions_M33 = np.linalg.eigh(np.einsum("nki,nkj->nij", offsets_Mk3, offsets_Mk3))
    normal_M3 = directions_M33[:, :, 0]
    away_M = np.einsum("ni,ni->n", normal_M3, points_M3) > 0
    return np.where(away_M[:, None], -normal_M3, normal_M3)


def stored(label: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """float32 as in label files; a valid value that is exactly -1 moves by one float so that it stays valid."""
    label = label.astype(np.float32)
    return np.where(valid & (label == NODATA), np.nextafter(np.float32(NODATA), np.float32(0)), label)
