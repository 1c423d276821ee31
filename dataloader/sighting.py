"""The labelled cells of an image as its pose and calibration see them, and how far off they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dataloader.labels import LabelCamera
from geometry.cameras import project
from geometry.grid import cell_centres
from geometry.poses import invert_pose, transform_points

# Labels of other systems may be picked a pixel beside the cell's centre; a wrong convention is off by far more.
_TOLERANCE_PX = 2.0
_TOLERANCE_OF_DIAGONAL = 0.005
MIN_CELLS = 8
# Mistakes are looked for with so many cells of an image.
_MAX_CELLS = 300


@dataclass(frozen=True)
class Sighting:
    """The labelled cells of one image: scene coordinates, and the pixels of the stored image that see them."""

    stem: str
    p_world_3N: torch.Tensor
    xy_px_2N: torch.Tensor
    world_from_cam_44: torch.Tensor
    K_33: torch.Tensor
    height_px: int
    width_px: int

    def __reduce__(self) -> tuple:
        # As arrays: between processes every tensor takes a file descriptor, of which there are few.
        return _from_arrays, tuple(v.numpy() if isinstance(v, torch.Tensor) else v for v in vars(self).values())

    @property
    def tolerance_px(self) -> float:
        return max(_TOLERANCE_PX, _TOLERANCE_OF_DIAGONAL * (self.height_px**2 + self.width_px**2) ** 0.5)

    def projected(self, world_from_cam_44: torch.Tensor, K_33: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels [2, N] and depths [N] with a pose and intrinsics."""
        p_cam_13N = transform_points(invert_pose(world_from_cam_44)[None], self.p_world_3N[None])
        xy_12N, depth_1N = project(p_cam_13N, K_33[None], min_depth=1e-6)
        return xy_12N[0], depth_1N[0]

    def median_px(self, world_from_cam_44: torch.Tensor, K_33: torch.Tensor) -> float:
        """Median distance from the cells' centres; a point behind the camera is infinitely far off."""
        xy_2N, depth_N = self.projected(world_from_cam_44, K_33)
        distance_N = torch.linalg.vector_norm(xy_2N - self.xy_px_2N, dim=0)
        return torch.where(depth_N > 0, distance_N, torch.inf).median().item()

    @property
    def as_stated_px(self) -> float:
        return self.median_px(self.world_from_cam_44, self.K_33)

    @property
    def where(self) -> str:
        """Where the labels lie as stated, and where they would be right: the end of a sentence."""
        off_px = self.as_stated_px
        lie = f"{off_px:.1f} px from their cells in the median" if np.isfinite(off_px) else "behind the camera"
        return f"{lie}, at most {self.tolerance_px:.1f} px is right"

    @property
    def is_right(self) -> bool:
        """Whether the labels lie on their cells."""
        return self.as_stated_px <= self.tolerance_px

    def thinned(self) -> Sighting:
        """With at most 300 of its cells."""
        step = -(-self.p_world_3N.shape[1] // _MAX_CELLS)
        return replace(self, p_world_3N=self.p_world_3N[:, ::step].clone(), xy_px_2N=self.xy_px_2N[:, ::step].clone())


def _from_arrays(*values: Any) -> Sighting:
    return Sighting(*(torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in values))


def sighting_of(
    stem: str, coords_3hw: torch.Tensor, valid_hw: torch.Tensor, world_from_cam_44: torch.Tensor, camera: LabelCamera
) -> Sighting | None:
    """The labelled cells of an image; None when there are too few of them."""
    if valid_hw.sum() < MIN_CELLS:
        return None
    centres_2hw = cell_centres(*valid_hw.shape, camera.stride, dtype=torch.float64)
    return Sighting(
        stem,
        coords_3hw[:, valid_hw].double(),
        centres_2hw[:, valid_hw],
        world_from_cam_44,
        camera.K_33,
        camera.height_px,
        camera.width_px,
    )
