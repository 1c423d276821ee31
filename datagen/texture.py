"""Orthophoto as a mip pyramid, filtered to each pixel's footprint (trilinear, anisotropic)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_MAX_LOG_PROBES = 4
# Two halved copies blended bilinearly are wider than the footprint: with this shift of the level, white noise keeps the
# contrast that averaging over the exact footprint leaves (measured against supersampling).
_LOD_BIAS = np.float32(-0.4)
# cv2.remap addresses sources with signed 16-bit integers and quantises coordinates, so large levels are read in tiles.
_TILE = 16384
_REMAP_COLS = 1024
_STRIP_ROWS = 2048
# What is picture and what is filled in is kept at the finest level with at most this many pixels.
_COVERAGE_PIXELS = 1 << 24


@dataclass(frozen=True)
class Footprint:
    """d(u, v) / d(image x, y) of N pixels: texture pixels per image pixel, float32 [N] each."""

    u_x: np.ndarray
    u_y: np.ndarray
    v_x: np.ndarray
    v_y: np.ndarray

    def ellipse(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Diameters (major, minor) and direction of the major axis (rad, from u to v) of the image of a unit disc."""
        uu, vv = self.u_x * self.u_x + self.u_y * self.u_y, self.v_x * self.v_x + self.v_y * self.v_y
        uv = self.u_x * self.v_x + self.u_y * self.v_y
        difference = uu - vv
        major = np.sqrt(0.5 * (uu + vv + np.sqrt(difference * difference + 4 * uv * uv)))
        minor = np.abs(self.u_x * self.v_y - self.u_y * self.v_x) / np.maximum(major, np.float32(1e-12))
        return major, minor, 0.5 * np.arctan2(2 * uv, difference)


class Texture:
    """8-bit colour with its halved copies; pixel (r, c) of level l averages 2^l x 2^l pixels of level 0."""

    def __init__(self, colour_HW3: np.ndarray, valid_HW: np.ndarray | None = None):
        """Args: colour_HW3 uint8; valid_HW bool, where False the colour is filled in from its surroundings."""
        if colour_HW3.dtype != np.uint8 or colour_HW3.ndim != 3 or colour_HW3.shape[2] != 3:
            raise ValueError(f"a texture is uint8 [H, W, 3], got {colour_HW3.dtype} {colour_HW3.shape}")
        self._picture_HW: np.ndarray | None = None
        self._picture_scale = 1.0
        if valid_HW is None or valid_HW.all():
            self.levels = _pyramid(colour_HW3)
        else:
            self.levels, weights = _filled_pyramid(colour_HW3, valid_HW)
            level = next(level for level, weight in enumerate(weights) if weight.size <= _COVERAGE_PIXELS)
            self._picture_HW, self._picture_scale = weights[level] > 0.5, 0.5**level
        self.mean_colour_3 = self.levels[-1].reshape(-1, 3).mean(axis=0)

    def sample(self, u_N: np.ndarray, v_N: np.ndarray, footprint: Footprint) -> np.ndarray:
        """Colour filtered to a footprint.

        Args:
            u_N, v_N: column and row of the centre, continuous pixels of level 0 (pixel i covers [i, i + 1)); float32.
        Returns:
            float32 [N, 3], 0 to 255. The footprint's long axis is covered by up to 16 probes, each trilinear.
        """
        major_N, minor_N, angle_N = footprint.ellipse()
        log_minor_N = np.log2(np.maximum(minor_N, 1e-6))
        log_major_N = np.log2(np.maximum(major_N, 1e-6))
        excess_N = np.clip(log_major_N - np.maximum(log_minor_N, 0), 0, _MAX_LOG_PROBES)
        log_probes_N = np.ceil(excess_N - np.float32(0.5)).astype(np.int8)
        colour_N3 = np.empty((len(u_N), 3), np.float32)
        for log_probes, which in _groups(log_probes_N):
            if log_probes == 0:
                # Near-round footprint: the mean of both axes.
                colour_N3[which] = self._trilinear(u_N[which], v_N[which], 0.5 * (log_minor_N[which] + log_major_N[which]))
                continue
            count = 1 << log_probes
            lod = np.maximum(log_minor_N[which], log_major_N[which] - np.float32(log_probes))
            u, v, major, angle = u_N[which], v_N[which], major_N[which], angle_N[which]
            along_u, along_v = major * np.cos(angle), major * np.sin(angle)
            total = 0
            for k in range(count):
                offset = np.float32((k + 0.5) / count - 0.5)
                total = total + self._trilinear(u + offset * along_u, v + offset * along_v, lod)
            colour_N3[which] = total / np.float32(count)
        return colour_N3

    def is_picture(self, u_N: np.ndarray, v_N: np.ndarray) -> np.ndarray:
        """Whether points (continuous pixels of level 0) lie on valid colour, bool [N]: not outside, not filled in."""
        rows, cols = self.levels[0].shape[:2]
        inside_N = (u_N >= 0) & (u_N < cols) & (v_N >= 0) & (v_N < rows)
        if self._picture_HW is None:
            return inside_N
        # Rounding may put a point of the last pixel beyond it.
        r = np.clip((v_N * self._picture_scale).astype(np.int64), 0, self._picture_HW.shape[0] - 1)
        c = np.clip((u_N * self._picture_scale).astype(np.int64), 0, self._picture_HW.shape[1] - 1)
        return inside_N & self._picture_HW[r, c]

    def _trilinear(self, u_N: np.ndarray, v_N: np.ndarray, lod_N: np.ndarray) -> np.ndarray:
        lod_N = np.clip(lod_N + _LOD_BIAS, 0, len(self.levels) - 1)
        lower_N = np.minimum(lod_N.astype(np.int8), max(len(self.levels) - 2, 0))
        upper_weight_N = (lod_N - lower_N).astype(np.float32)
        colour_N3 = np.empty((len(u_N), 3), np.float32)
        for level, which in _groups(lower_N):
            u, v, weight = u_N[which], v_N[which], upper_weight_N[which, None]
            low = _bilinear(self.levels[level], u, v, level).astype(np.float32)
            if level + 1 < len(self.levels):
                low += weight * (_bilinear(self.levels[level + 1], u, v, level + 1) - low)
            colour_N3[which] = low
        return colour_N3


def _groups(label_N: np.ndarray):
    """(label, index) of each value that occurs; the index is a slice when there is only one."""
    counts = np.bincount(label_N) if len(label_N) else ()
    for label in np.flatnonzero(counts).tolist():
        yield label, slice(None) if counts[label] == len(label_N) else np.flatnonzero(label_N == label)


def _bilinear(level_HW3: np.ndarray, u_N: np.ndarray, v_N: np.ndarray, level: int) -> np.ndarray:
    """Bilinear colour uint8 [N, 3] at level-0 coordinates; the border colour is repeated outwards."""
    scale = np.float32(0.5**level)
    x, y = u_N * scale - np.float32(0.5), v_N * scale - np.float32(0.5)
    rows, cols = level_HW3.shape[:2]
    if rows <= _TILE and cols <= _TILE:
        return _remap(level_HW3, x, y)
    colour_N3 = np.empty((len(u_N), 3), np.uint8)
    tile_N = (np.clip(y, 0, rows - 1) // _TILE).astype(np.int64) * (cols // _TILE + 1) + (
        np.clip(x, 0, cols - 1) // _TILE
    ).astype(np.int64)
    for tile in np.unique(tile_N):
        which = np.flatnonzero(tile_N == tile)
        r, c = divmod(int(tile), cols // _TILE + 1)
        source = level_HW3[r * _TILE : (r + 1) * _TILE + 1, c * _TILE : (c + 1) * _TILE + 1]
        colour_N3[which] = _remap(source, x[which] - c * _TILE, y[which] - r * _TILE)
    return colour_N3


def _remap(source_HW3: np.ndarray, x_N: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    count = len(x_N)
    rows = -(-count // _REMAP_COLS)
    padding = rows * _REMAP_COLS - count
    limit = np.float32(2 * _TILE)
    x = np.pad(np.clip(x_N, -1, limit), (0, padding)).reshape(rows, _REMAP_COLS)
    y = np.pad(np.clip(y_N, -1, limit), (0, padding)).reshape(rows, _REMAP_COLS)
    sampled = cv2.remap(source_HW3, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled.reshape(-1, 3)[:count]


def _even(image: np.ndarray) -> np.ndarray:
    rows, cols = image.shape[:2]
    if rows % 2 == 0 and cols % 2 == 0:
        return image
    return cv2.copyMakeBorder(image, 0, rows % 2, 0, cols % 2, cv2.BORDER_REPLICATE)


def _halved_size(image: np.ndarray) -> tuple[int, int]:
    return image.shape[1] // 2, image.shape[0] // 2


def _pyramid(colour_HW3: np.ndarray) -> list[np.ndarray]:
    levels = [np.ascontiguousarray(colour_HW3)]
    while max(levels[-1].shape[:2]) > 1:
        even = _even(levels[-1])
        levels.append(cv2.resize(even, _halved_size(even), interpolation=cv2.INTER_AREA))
    return levels


def _filled_pyramid(colour_HW3: np.ndarray, valid_HW: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pyramid of the valid colours only; every hole then takes the colour of the finest level that knows it.

    Returns:
        (colours, share of each pixel that was valid) of every level.
    """
    levels, weights = [np.ascontiguousarray(colour_HW3)], [valid_HW.astype(np.float32)]
    while max(levels[-1].shape[:2]) > 1:
        colour, weight = _halve_weighted(_even(levels[-1]), _even(weights[-1]))
        levels.append(colour)
        weights.append(weight)
    for level in range(len(levels) - 2, -1, -1):
        rows, cols = levels[level].shape[:2]
        coarse = levels[level + 1]
        wide = cv2.resize(coarse, (coarse.shape[1] * 2, coarse.shape[0] * 2), interpolation=cv2.INTER_LINEAR)[:rows, :cols]
        hole = weights[level] == 0
        levels[level] = np.where(hole[..., None], wide, levels[level])
    return levels, weights


def _halve_weighted(colour_HW3: np.ndarray, weight_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One weighted halving, in strips so that the float copy of a large orthophoto stays small."""
    width, height = _halved_size(colour_HW3)
    colour, weight = np.empty((height, width, 3), np.uint8), np.empty((height, width), np.float32)
    for start in range(0, 2 * height, _STRIP_ROWS):
        strip = slice(start, min(start + _STRIP_ROWS, 2 * height))
        half = slice(strip.start // 2, strip.stop // 2)
        size = (width, half.stop - half.start)
        weighted = colour_HW3[strip].astype(np.float32) * weight_HW[strip, :, None]
        mean = cv2.resize(weighted, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], 3)
        weight[half] = cv2.resize(weight_HW[strip], size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0])
        colour[half] = np.clip(np.rint(mean / np.maximum(weight[half], 1e-6)[..., None]), 0, 255)
    return colour, weight
