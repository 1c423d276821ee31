"""Where patches of a photo lie in a render of the same place: similarity maps and their peaks.

Photo and render differ by season and light: leaves change colour, shadows fall to the other side. What stays is where edges
lie and how they run, but not which of their sides is the brighter one. So patches are compared by the doubled angle of the
gradient, in which an edge and its negative are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from geometry.grid import grid_size

# Gradients are taken at this scale, px.
_GRADIENT_SIGMA_PX = 1.0
# A gradient counts by the root of its size over the typical one of its surroundings of this scale, grey levels above noise.
_SURROUNDINGS_PX, _NOISE_LEVEL = 8.0, 2.0
# A second peak is one that is farther than this from the first, px.
_PEAK_RADIUS_PX = 3
# Variance of features below which there is no structure; noise of photos has a hundred times as much.
_LEAST_VARIANCE = 1e-4
# What similarity is lost at a perfect match to noise at least: peaks are never believed to be sharper.
_LEAST_DISTANCE = 0.02


@dataclass(frozen=True)
class PatchGrid:
    """Patches of a photo around the centres of the cells of a grid, as the solver takes them.

    Attributes:
        stride: pixels per cell, even: cell (i, j) has its centre at ((j + 1/2) stride, (i + 1/2) stride).
        half: half of a patch's side, pixels.
        shape: cells (h, w).
        rows_P, columns_P: of the cells whose patch lies inside the photo.
    """

    stride: int
    half: int
    shape: tuple[int, int]
    rows_P: np.ndarray
    columns_P: np.ndarray

    @classmethod
    def of_image(cls, height: int, width: int, stride: int, half: int) -> PatchGrid:
        """All patches that lie inside an image.

        Raises:
            ValueError: an odd stride.
        """
        if stride % 2:
            raise ValueError(f"the stride of patches must be even, got {stride}")
        h, w = grid_size(height, width, stride)
        y_h, x_w = (stride * np.arange(n) + stride // 2 for n in (h, w))
        inside = ((y_h >= half) & (y_h <= height - half))[:, None] & ((x_w >= half) & (x_w <= width - half))
        return cls(stride, half, (h, w), *np.nonzero(inside))

    @property
    def centres_P2(self) -> np.ndarray:
        """Centres (x, y) of the patches, continuous pixels; whole numbers."""
        return np.stack((self.columns_P, self.rows_P), 1) * self.stride + self.stride // 2

    def spread(self, values_PC: np.ndarray, fill: float) -> np.ndarray:
        """Values [P, ...] of the patches on the grid [h, w, ...]."""
        grid = np.full((*self.shape, *values_PC.shape[1:]), fill, values_PC.dtype)
        grid[self.rows_P, self.columns_P] = values_PC
        return grid


def edge_directions(image_HW3: np.ndarray) -> np.ndarray:
    """Doubled gradient angles, float32 [H, W, 2], longer where the gradient stands out from its surroundings.

    Args:
        image_HW3: uint8 RGB.
    """
    grey_HW = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey_HW = cv2.GaussianBlur(grey_HW, (0, 0), _GRADIENT_SIGMA_PX)
    # The kernels' positive half sums to 16, over two pixels.
    x_HW, y_HW = (cv2.Scharr(grey_HW, cv2.CV_32F, *axis, scale=1 / 32) for axis in ((1, 0), (0, 1)))
    size_HW = np.hypot(x_HW, y_HW)
    around_HW = np.sqrt(cv2.GaussianBlur(size_HW * size_HW, (0, 0), _SURROUNDINGS_PX) + _NOISE_LEVEL**2)
    doubled_HW2 = np.stack((x_HW * x_HW - y_HW * y_HW, 2 * x_HW * y_HW), -1)
    return doubled_HW2 / ((size_HW + 1e-6) * (np.sqrt(size_HW * around_HW) + 1))[..., None]


def similarities(photo_HWC: np.ndarray, render_HWC: np.ndarray, grid: PatchGrid, radius: int) -> np.ndarray:
    """Normalised cross-correlation of every patch with the render around it, float32 [P, 2 radius + 1, 2 radius + 1].

    Args:
        photo_HWC, render_HWC: features; the render is `radius` pixels wider than the photo on all four sides.
    Returns:
        similarity in [-1, 1] at [patch, radius + dy, radius + dx]; 0 where a side has no structure.
    """
    size, side = 2 * radius + 1, 2 * grid.half
    similarity_PSS = np.zeros((len(grid.rows_P), size, size), np.float32)
    # OpenCV calls what has no structure perfectly alike.
    structured_HW = _variance(render_HWC, side) > _LEAST_VARIANCE
    patches_HW = _variance(photo_HWC, side) > _LEAST_VARIANCE
    for similarity_SS, (x, y) in zip(similarity_PSS, grid.centres_P2 - grid.half, strict=True):
        patch, window = photo_HWC[y : y + side, x : x + side], render_HWC[y : y + side + size - 1, x : x + side + size - 1]
        if patches_HW[y + grid.half, x + grid.half]:
            cv2.matchTemplate(window, patch, cv2.TM_CCOEFF_NORMED, similarity_SS)
            similarity_SS *= structured_HW[y + grid.half :, x + grid.half :][:size, :size]
    return similarity_PSS


def _variance(image_HWC: np.ndarray, side: int) -> np.ndarray:
    """Variance [H, W] over the square of an even side around each pixel's upper left corner, summed over the channels."""
    mean_HWC, square_HWC = (cv2.boxFilter(v, -1, (side, side)) for v in (image_HWC, image_HWC * image_HWC))
    return (square_HWC - mean_HWC * mean_HWC).sum(axis=2)


@dataclass(frozen=True)
class Peaks:
    """The highest point of every similarity map.

    Attributes:
        offset_P2: its place (dx, dy) from the map's centre, sub-pixel.
        similarity_P: there. margin_P: above the highest one that is not its neighbour.
        sigma_P: standard deviation of the place, px up to a common factor: by the peak's curvature and what it lacks to 1.
        sharp_P: whether it is a peak at all, inside the map and curved along both axes.
    """

    offset_P2: np.ndarray
    similarity_P: np.ndarray
    margin_P: np.ndarray
    sigma_P: np.ndarray
    sharp_P: np.ndarray


def find_peaks(similarity_PSS: np.ndarray) -> Peaks:
    """Peaks of similarity maps by a parabola through the nine values about the highest."""
    count, size, _ = similarity_PSS.shape
    highest_y, highest_x = np.divmod(similarity_PSS.reshape(count, -1).argmax(1), size)
    # The parabola needs a neighbour on each side; a maximum on the border is none.
    x, y = np.clip(highest_x, 1, size - 2), np.clip(highest_y, 1, size - 2)
    around = similarity_PSS[np.arange(count)[:, None, None], y[:, None, None] + _THREE[:, None], x[:, None, None] + _THREE]
    around = around.astype(np.float64)
    g_x, g_y = (around[:, 1, 2] - around[:, 1, 0]) / 2, (around[:, 2, 1] - around[:, 0, 1]) / 2
    h_xx = around[:, 1, 2] + around[:, 1, 0] - 2 * around[:, 1, 1]
    h_yy = around[:, 2, 1] + around[:, 0, 1] - 2 * around[:, 1, 1]
    h_xy = (around[:, 2, 2] + around[:, 0, 0] - around[:, 2, 0] - around[:, 0, 2]) / 4
    determinant = h_xx * h_yy - h_xy * h_xy
    sharp = (x == highest_x) & (y == highest_y) & (determinant > 1e-9) & (h_xx < 0)
    determinant = np.where(sharp, determinant, 1.0)
    step_x, step_y = (h_xy * g_y - h_yy * g_x) / determinant, (h_xy * g_x - h_xx * g_y) / determinant
    sharp &= (np.abs(step_x) <= 1) & (np.abs(step_y) <= 1)
    offset_P2 = np.stack((x + np.clip(step_x, -1, 1), y + np.clip(step_y, -1, 1)), 1) - size // 2
    similarity = around[:, 1, 1]
    variance = np.where(sharp, -(h_xx + h_yy) / determinant, np.inf) * np.maximum(1 - similarity, _LEAST_DISTANCE)
    return Peaks(offset_P2, similarity, similarity - _second(similarity_PSS, x, y), np.sqrt(variance), sharp)


_THREE = np.array([-1, 0, 1])


def _second(similarity_PSS: np.ndarray, x_P: np.ndarray, y_P: np.ndarray) -> np.ndarray:
    """The highest similarity of each map that lies outside of the neighbourhood of x, y; -1 where there is no outside."""
    across = np.arange(similarity_PSS.shape[1])
    near_y, near_x = (np.abs(across - p[:, None]) <= _PEAK_RADIUS_PX for p in (y_P, x_P))
    return np.where(near_y[:, :, None] & near_x[:, None, :], -1, similarity_PSS).max(axis=(1, 2))


def values_at(similarity_PSS: np.ndarray, offset_P2: np.ndarray) -> np.ndarray:
    """Similarities at offsets (dx, dy) from the maps' centres, bilinear [P]; NaN outside of the maps."""
    radius = similarity_PSS.shape[1] // 2
    x_P, y_P = np.nan_to_num(offset_P2 + radius, nan=-1.0).T
    inside_P = (x_P >= 0) & (y_P >= 0) & (x_P <= 2 * radius) & (y_P <= 2 * radius)
    x, y = (np.clip(np.floor(v).astype(int), 0, 2 * radius - 1) for v in (x_P, y_P))
    a, b, patch = np.clip(x_P - x, 0, 1), np.clip(y_P - y, 0, 1), np.arange(len(x))
    upper = (1 - a) * similarity_PSS[patch, y, x] + a * similarity_PSS[patch, y, x + 1]
    lower = (1 - a) * similarity_PSS[patch, y + 1, x] + a * similarity_PSS[patch, y + 1, x + 1]
    return np.where(inside_P, (1 - b) * upper + b * lower, np.nan)
