"""A photo at the size at which it is compared with the map, and renders of the map around it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datagen.render import View, depth_edges
from dataloader.images import resize_image, resized_shape
from localization.geodata import Geodata

# Thresholds in pixels are given for images of this height, and grow with the image.
REFERENCE_HEIGHT = 240
# Pixels around a bend of the depth at which a point on the map is not certain.
_EDGE_MARGIN_PX = 1


@dataclass(frozen=True)
class WorkingPhoto:
    """image_HW3: uint8 RGB. K_33: its intrinsics, pixels."""

    image_HW3: np.ndarray
    K_33: np.ndarray

    @classmethod
    def of(cls, image_HW3: np.ndarray, K_33: np.ndarray, height: int) -> WorkingPhoto:
        """A photo made smaller, to a shorter side of `height`; smaller ones stay as they are."""
        H, W = image_HW3.shape[:2]
        small_HW3 = resize_image(image_HW3, *resized_shape(H, W, min(height, H, W)))
        return cls(small_HW3, np.diag((small_HW3.shape[1] / W, small_HW3.shape[0] / H, 1.0)) @ K_33)

    @property
    def shorter_side(self) -> int:
        return min(self.image_HW3.shape[:2])

    @property
    def scale(self) -> float:
        """Its size in units of the reference."""
        return self.shorter_side / REFERENCE_HEIGHT

    def render(self, geodata: Geodata, world_from_cam_44: np.ndarray, margin: int) -> Surroundings:
        """What the map shows at a pose, `margin` pixels wider than the photo on all four sides."""
        H, W = self.image_HW3.shape[:2]
        wide_33 = self.K_33.copy()
        wide_33[:2, 2] += margin
        view = geodata.render(world_from_cam_44, wide_33, W + 2 * margin, H + 2 * margin)
        side = 2 * _EDGE_MARGIN_PX + 1
        edges_HW = cv2.dilate(depth_edges(view.depth_hw, wide_33).astype(np.uint8), np.ones((side, side), np.uint8))
        return Surroundings(view, view.valid_hw & (edges_HW == 0))


@dataclass(frozen=True)
class Surroundings:
    """A render. certain_HW: its pixels that show the map away from bends of its depth."""

    view: View
    certain_HW: np.ndarray

    def points(self, xy_N2: np.ndarray, *, certain: bool = True) -> np.ndarray:
        """World points [N, 3] at continuous pixels, bilinear; NaN unless all four neighbours show the map.

        Args:
            certain: whether they must do so away from bends of its depth.
        """
        good_HW = self.certain_HW if certain else self.view.valid_hw
        H, W = good_HW.shape
        index_N2 = xy_N2 - 0.5
        x, y = np.clip(np.floor(index_N2).astype(int), 0, (W - 2, H - 2)).T
        a, b = (index_N2 - np.stack((x, y), 1)).T
        corners = [(y, x, (1 - a) * (1 - b)), (y, x + 1, a * (1 - b)), (y + 1, x, (1 - a) * b), (y + 1, x + 1, a * b)]
        good_N = np.logical_and.reduce([good_HW[row, column] for row, column, _ in corners])
        points_N3 = sum(
            self.view.coords_3hw[:, row, column].T.astype(np.float64) * weight[:, None] for row, column, weight in corners
        )
        return np.where(good_N[:, None], points_N3, np.nan)
