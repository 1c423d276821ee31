"""Images and labels as another camera at the same place sees them: turned about its centre, zoomed, shifted.

A `CameraChange` is planned on the CPU from values of the CPU, then sent to where images and labels are; no GPU waits.
Depth is kept per ray: coordinate labels are made by sending the rays through the new cell centres to the resampled depth,
so that they reproject onto the cell centres exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dataloader.batch import transferred
from geometry.poses import invert_pose, transform_points

# Neighbouring cells whose inverse depths differ by more than this ratio belong to different surfaces.
_MAX_INVERSE_DEPTH_RATIO = 1.1


@dataclass(frozen=True)
class Plane:
    """A map of `cells` (h, w) over the images of a batch, `stride` pixels a cell, with intrinsics [B, 3, 3] in pixels."""

    K_B33: torch.Tensor
    cells: tuple[int, int]
    stride: int = 1

    @property
    def pixel_from_unit_33(self) -> torch.Tensor:
        """From [-1, 1] coordinates over the map (as in `grid_sample`, align_corners False) to pixels."""
        half_h, half_w = (self.stride * n / 2 for n in self.cells)
        return torch.tensor([[half_w, 0, half_w], [0, half_h, half_h], [0, 0, 1]], dtype=torch.float64)


@dataclass(frozen=True)
class CameraChange:
    """Where the cells of a target map lie in a source map.

    Attributes:
        source_from_target_G33: float32 homographies between the maps' [-1, 1] coordinates. G is B, or 1 when all images
            of the batch share one.
        ray_from_target_G33: float32, from the same coordinates to rays in the source camera's frame.
        source_from_target_R_33: float32 rotation between the cameras.
        cells: (h, w) of the target map.
        affine: whether the homographies are.
    """

    source_from_target_G33: torch.Tensor
    ray_from_target_G33: torch.Tensor
    source_from_target_R_33: torch.Tensor
    cells: tuple[int, int]
    affine: bool

    @classmethod
    def between(
        cls, source: Plane, target: Plane, source_from_target_R_33: torch.Tensor, device: torch.device
    ) -> CameraChange:
        """Plans a change; all arguments on the CPU in float64, the result on `device`."""
        K_src_G33, K_dst_G33 = source.K_B33, target.K_B33
        if (K_src_G33 == K_src_G33[:1]).all() and (K_dst_G33 == K_dst_G33[:1]).all():
            K_src_G33, K_dst_G33 = K_src_G33[:1], K_dst_G33[:1]
        ray_G33 = source_from_target_R_33 @ torch.linalg.inv(K_dst_G33) @ target.pixel_from_unit_33
        unit_from_ray_G33 = torch.linalg.inv(source.pixel_from_unit_33) @ K_src_G33
        homography_G33 = unit_from_ray_G33 @ ray_G33
        return cls(
            transferred(homography_G33.float(), device),
            transferred(ray_G33.float(), device),
            transferred(source_from_target_R_33.float(), device),
            target.cells,
            affine=not homography_G33[:, 2, :2].any(),
        )

    def grid_Ghw2(self) -> torch.Tensor:
        """Where to sample the source map, as `grid_sample` wants it."""
        if self.affine:
            return F.affine_grid(self.source_from_target_G33[:, :2], self._size(), align_corners=False)
        xyw_G3N = self.source_from_target_G33 @ self._unit_3N()
        return (xyw_G3N[:, :2] / xyw_G3N[:, 2:]).transpose(1, 2).reshape(-1, *self.cells, 2)

    def rays_G3N(self) -> torch.Tensor:
        """Rays through the target's cell centres in the source camera's frame; their z is not 1 after a tilt."""
        return self.ray_from_target_G33 @ self._unit_3N()

    def _unit_3N(self) -> torch.Tensor:
        """Homogeneous [-1, 1] coordinates of the target's cell centres."""
        h, w = self.cells
        device = self.source_from_target_G33.device
        x_w, y_h = ((2 * torch.arange(n, device=device, dtype=torch.float32) + 1) / n - 1 for n in (w, h))
        x_hw, y_hw = x_w.expand(h, w), y_h[:, None].expand(h, w)
        return torch.stack((x_hw, y_hw, torch.ones_like(x_hw))).flatten(1)

    def _size(self) -> list[int]:
        return [len(self.source_from_target_G33), 1, *self.cells]


@dataclass(frozen=True)
class LabelMaps:
    """Labels of a batch on their own grid, on the device that they are wanted on; see `dataloader.section.Label`."""

    maps_BChw: torch.Tensor
    valid_B1hw: torch.Tensor
    world_from_cam_B44: torch.Tensor


def sample(maps_BChw: torch.Tensor, grid_Ghw2: torch.Tensor, mode: str) -> torch.Tensor:
    """Maps at a grid that is each one's own or common to all; what lies outside is zero."""
    B, C = maps_BChw.shape[:2]
    common = len(grid_Ghw2) < B
    # One camera: images become channels of one, so that weights are computed once.
    maps = maps_BChw.reshape(1, B * C, *maps_BChw.shape[2:]) if common else maps_BChw
    sampled = F.grid_sample(maps, grid_Ghw2, mode=mode, padding_mode="zeros", align_corners=False)
    return sampled.reshape(B, C, *grid_Ghw2.shape[1:3])


def _resampled_classes(labels: LabelMaps, change: CameraChange) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes of the nearest pixel; outside the image is class 0. All pixels count."""
    classes_B1HW = sample(labels.maps_BChw.float(), change.grid_Ghw2(), "nearest")
    return classes_B1HW, torch.ones_like(classes_B1HW, dtype=torch.bool)


def _resampled_normals(labels: LabelMaps, change: CameraChange) -> tuple[torch.Tensor, torch.Tensor]:
    grid_Ghw2 = change.grid_Ghw2()
    normals_B3hw = sample(labels.maps_BChw, grid_Ghw2, "nearest")
    turned_B3hw = torch.einsum("ji,bjhw->bihw", change.source_from_target_R_33, normals_B3hw)
    return turned_B3hw, _valid_at(labels, grid_Ghw2)


def _resampled_depths(labels: LabelMaps, change: CameraChange) -> tuple[torch.Tensor, torch.Tensor]:
    grid_Ghw2 = change.grid_Ghw2()
    depth_B1hw = _depth_at(labels.maps_BChw, labels.valid_B1hw, grid_Ghw2)
    # The source's depth of a point, over that of the ray whose depth in the target is one.
    ray_depth_G1hw = change.rays_G3N()[:, 2:].reshape(-1, 1, *change.cells)
    return depth_B1hw / ray_depth_G1hw, _valid_at(labels, grid_Ghw2)


def _resampled_coords(labels: LabelMaps, change: CameraChange) -> tuple[torch.Tensor, torch.Tensor]:
    grid_Ghw2 = change.grid_Ghw2()
    cam_from_world_B44 = invert_pose(labels.world_from_cam_B44)
    depth_B1hw = transform_points(cam_from_world_B44, labels.maps_BChw.flatten(2))[:, 2:].reshape(labels.valid_B1hw.shape)
    depth_B1N = _depth_at(depth_B1hw, labels.valid_B1hw, grid_Ghw2).flatten(2)
    rays_G3N = change.rays_G3N()
    p_cam_B3N = rays_G3N / rays_G3N[:, 2:] * depth_B1N
    coords_B3hw = transform_points(labels.world_from_cam_B44, p_cam_B3N).unflatten(2, change.cells)
    return coords_B3hw, _valid_at(labels, grid_Ghw2)


RESAMPLED: dict[str, Callable[[LabelMaps, CameraChange], tuple[torch.Tensor, torch.Tensor]]] = {
    "coord": _resampled_coords,
    "depth": _resampled_depths,
    "normal": _resampled_normals,
    "semantics": _resampled_classes,
}


def _valid_at(labels: LabelMaps, grid_Ghw2: torch.Tensor) -> torch.Tensor:
    return sample(labels.valid_B1hw.float(), grid_Ghw2, "nearest") > 0.5


def _depth_at(depth_B1hw: torch.Tensor, valid_B1hw: torch.Tensor, grid_Ghw2: torch.Tensor) -> torch.Tensor:
    """Depth at the grid: inverse depth is affine on planes, so it is interpolated within a surface; nearest across edges."""
    inverse = torch.where(valid_B1hw & (depth_B1hw > 0), 1 / depth_B1hw.clamp(min=1e-3), 0.0)
    largest = F.max_pool2d(inverse, 3, 1, 1)
    smallest = -F.max_pool2d(-inverse, 3, 1, 1)
    one_surface = (largest <= _MAX_INVERSE_DEPTH_RATIO * smallest).float()
    nearest = sample(torch.cat((inverse, one_surface), 1), grid_Ghw2, "nearest")
    linear = sample(torch.cat((inverse, valid_B1hw.float()), 1), grid_Ghw2, "bilinear")
    interpolate = (nearest[:, 1:] > 0.5) & (linear[:, 1:] > 0.999)
    inverse = torch.where(interpolate, linear[:, :1], nearest[:, :1])
    return torch.where(inverse > 0, 1 / inverse, 0.0)
