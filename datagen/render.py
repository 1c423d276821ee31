"""Views of a scene: colour filtered to the pixel, and labels exactly through the cell centres."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from datagen.raycast import Hits
from datagen.scene import UNCLASSIFIED, GeoScene
from datagen.texture import Footprint
from geometry.grid import STRIDE

# Footprints are computed for surfaces tilted at most this far from the ray (cosine): beyond, one texel row decides.
_MIN_INCIDENCE = 0.05
_SKY_ZENITH, _SKY_HORIZON = np.float32([96, 146, 214]), np.float32([206, 221, 236])
# A pixel is an edge when the inverse depth bends by more than this many times the pixel's angle.
_EDGE_BEND = 1.5
# Sub-pixel rays of an edge pixel, like rooks on a chess board: eight different offsets along x and along y.
_EDGE_OFFSETS_82 = (np.stack((np.arange(8), [3, 6, 1, 4, 7, 2, 5, 0]), 1) + 0.5) / 8


@dataclass(frozen=True)
class View:
    """One rendered camera. NaN (labels) and code 0 (semantics) where the rays meet no surface.

    Attributes:
        rgb_HW3: uint8. semantics_HW: uint8 LAS codes.
        coords_3hw: world points, metres. depth_hw: z-buffer depth, metres.
        normal_3hw: unit normals in the camera frame, oriented towards the camera. All float32.
    """

    rgb_HW3: np.ndarray
    coords_3hw: np.ndarray
    depth_hw: np.ndarray
    normal_3hw: np.ndarray
    semantics_HW: np.ndarray

    @property
    def valid_hw(self) -> np.ndarray:
        return np.isfinite(self.depth_hw)


@dataclass(frozen=True)
class Sight:
    """Shares of a view's cells: that see the surface; where the orthophoto shows it; that see it from below."""

    surface: float
    picture: float
    underside: float


@dataclass(frozen=True)
class Backdrop:
    """What rays below the horizon show that leave the data: the orthophoto from elsewhere, turned and mirrored.

    Photos show something beyond the border of the geodata; rendered with a constant colour there, views teach a network to
    read its position off that border.

    Attributes:
        angle_rad: turn of the orthophoto. shift_xy: where it goes, in units of its extent.
    """

    angle_rad: float
    shift_xy: tuple[float, float]

    @classmethod
    def drawn(cls, generator: np.random.Generator) -> Backdrop:
        return cls(generator.uniform(-np.pi, np.pi), tuple(generator.uniform(0, 2, 2)))


class Renderer:
    """Renders views of a scene by casting rays at its surface. Thread-safe."""

    def __init__(self, scene: GeoScene, *, label_stride: int = STRIDE):
        """Args: label_stride: pixels per label cell; 8 for the network grid, 1 for full-size labels."""
        if label_stride < 1:
            raise ValueError(f"label_stride must be at least 1, got {label_stride}")
        self.scene, self.label_stride = scene, label_stride
        self._ground_m = float(np.nanmedian(scene.heights_rc))

    def sight(self, world_from_cam_44: np.ndarray, K_33: np.ndarray, width: int, height: int) -> Sight:
        """What the network grid's cells of a view see, without rendering it."""
        direction_N3 = pixel_directions(world_from_cam_44, K_33, *_cell_centres(width, height, STRIDE))
        hits = self._cast(world_from_cam_44, direction_N3)
        hit_N = hits.hit_N
        direction_M3, t_M = direction_N3[hit_N], hits.t_N[hit_N]
        x_M, y_M = _plan_position(world_from_cam_44, direction_M3, t_M)
        grid = self.scene.ortho_grid
        pictured_M = self.scene.texture.is_picture(grid.columns(x_M), grid.rows_of(y_M))
        underside_M = np.einsum("ni,ni->n", hits.normal_N3[hit_N], direction_M3) > 0
        return Sight(*(float(count) / len(hit_N) for count in (hit_N.sum(), pictured_M.sum(), underside_M.sum())))

    def visible_fraction(self, world_from_cam_44: np.ndarray, K_33: np.ndarray, width: int, height: int) -> float:
        """Share of the network grid's cells that see the surface."""
        return self.sight(world_from_cam_44, K_33, width, height).surface

    def render(
        self,
        world_from_cam_44: np.ndarray,
        K_33: np.ndarray,
        width: int,
        height: int,
        backdrop: Backdrop | None = None,
        *,
        smooth_edges: bool = True,
    ) -> View:
        """Renders one view.

        Args:
            world_from_cam_44: pose, OpenCV camera axes, metres.
            K_33: intrinsics in continuous pixels (the image spans [0, width] x [0, height]), zero skew.
            backdrop: what shows beyond the data; None: the orthophoto's mean colour.
            smooth_edges: whether pixels on depth edges are the mean of several rays; a third of the time.
        """
        pixel_x, pixel_y = _cell_centres(width, height, 1)
        direction_N3 = pixel_directions(world_from_cam_44, K_33, pixel_x, pixel_y)
        hits = self._cast(world_from_cam_44, direction_N3)
        rgb_N3 = self._colour(world_from_cam_44, K_33, direction_N3, hits, 1.0, backdrop)
        if smooth_edges:
            self._smooth_edges(rgb_N3, world_from_cam_44, K_33, hits, width, height, backdrop)
        coords_3hw, depth_hw, normal_3hw = self._labels(world_from_cam_44, K_33, direction_N3, hits, width, height)
        return View(
            np.clip(np.rint(rgb_N3), 0, 255).astype(np.uint8).reshape(height, width, 3),
            coords_3hw,
            depth_hw,
            normal_3hw,
            self._codes(world_from_cam_44, direction_N3, hits).reshape(height, width),
        )

    def _cast(self, world_from_cam_44: np.ndarray, direction_N3: np.ndarray) -> Hits:
        origin_N3 = np.broadcast_to(world_from_cam_44[:3, 3].astype(np.float32), direction_N3.shape)
        return self.scene.raycaster.cast(origin_N3, direction_N3)

    def _colour(
        self, world_from_cam_44, K_33, direction_N3, hits: Hits, pixel_size: float, backdrop: Backdrop | None
    ) -> np.ndarray:
        """Colour float32 [N, 3] of rays that each stand for a pixel_size x pixel_size part of the image."""
        colour_N3 = np.empty((len(direction_N3), 3), np.float32)
        hit_N = hits.hit_N
        if not hit_N.all():
            beyond_N3 = self._beyond(world_from_cam_44, K_33, direction_N3[~hit_N], pixel_size, backdrop)
            colour_N3[~hit_N] = _below_sky(direction_N3[~hit_N], beyond_N3)
        which = slice(None) if hit_N.all() else np.flatnonzero(hit_N)
        direction, t, normal = direction_N3[which], hits.t_N[which], hits.normal_N3[which]
        if len(direction) == 0:
            return colour_N3
        grid = self.scene.ortho_grid
        x, y = _plan_position(world_from_cam_44, direction, t)
        # A neighbouring ray meets the facet's plane at p + t (e - d (n.e) / (n.d)); only x and y matter to the map.
        n_dot_d = np.einsum("ni,ni->n", normal, direction)
        limit = np.einsum("ni,ni->n", normal, normal) * np.einsum("ni,ni->n", direction, direction)
        t_over_n_dot_d = t / np.minimum(n_dot_d, np.float32(-_MIN_INCIDENCE) * np.sqrt(limit))
        columns = []
        for axis in range(2):
            step_3 = (world_from_cam_44[:3, axis] * (pixel_size / K_33[axis, axis])).astype(np.float32)
            ratio = _dot(normal, step_3) * t_over_n_dot_d
            columns.append((step_3[0] * t - direction[:, 0] * ratio) * np.float32(1 / grid.step_x))
            columns.append((step_3[1] * t - direction[:, 1] * ratio) * np.float32(-1 / grid.step_y))
        u_x, v_x, u_y, v_y = columns
        u, v = grid.columns(x).astype(np.float32), grid.rows_of(y).astype(np.float32)
        colour_N3[which] = self.scene.texture.sample(u, v, Footprint(u_x, u_y, v_x, v_y))
        if hits.splat_N is not None and self.scene.splats.rgb_K3 is not None:
            on_splat = hits.splat_N >= 0
            colour_N3[on_splat] = self.scene.splats.rgb_K3[hits.splat_N[on_splat]]
        return colour_N3

    def _beyond(
        self, world_from_cam_44, K_33, direction_N3: np.ndarray, pixel_size: float, backdrop: Backdrop | None
    ) -> np.ndarray:
        """Colour float32, [N, 3] or [3], of what lies below the horizon and beyond the data."""
        texture, grid = self.scene.texture, self.scene.ortho_grid
        above_m = world_from_cam_44[2, 3] - self._ground_m
        if backdrop is None or above_m <= 0:
            return texture.mean_colour_3.astype(np.float32)
        # On a plane at the ground's height; rays close to the horizon or above it end in the sky anyway.
        t_N = np.float32(above_m) / np.maximum(-direction_N3[:, 2], np.float32(0.01))
        x, y = _plan_position(world_from_cam_44, direction_N3, t_N)
        cosine, sine = np.float32(np.cos(backdrop.angle_rad)), np.float32(np.sin(backdrop.angle_rad))
        u = grid.columns(cosine * x - sine * y).astype(np.float32) + np.float32(backdrop.shift_xy[0] * grid.cols)
        v = grid.rows_of(sine * x + cosine * y).astype(np.float32) + np.float32(backdrop.shift_xy[1] * grid.rows)
        size = t_N * np.float32(pixel_size / K_33[0, 0] / grid.step_x)
        none = np.zeros_like(size)
        return texture.sample(_mirrored(u, grid.cols), _mirrored(v, grid.rows), Footprint(size, none, none, size))

    def _smooth_edges(
        self, rgb_N3, world_from_cam_44, K_33, hits: Hits, width: int, height: int, backdrop: Backdrop | None
    ) -> None:
        """Replaces the colour of pixels on depth edges by the mean of eight sub-pixel rays, in place."""
        edge = np.flatnonzero(depth_edges(hits.t_N.reshape(height, width), K_33))
        if len(edge) == 0:
            return
        x = ((edge % width)[:, None] + _EDGE_OFFSETS_82[:, 0]).ravel()
        y = ((edge // width)[:, None] + _EDGE_OFFSETS_82[:, 1]).ravel()
        direction_N3 = pixel_directions(world_from_cam_44, K_33, x, y)
        fine_hits = self._cast(world_from_cam_44, direction_N3)
        fine = self._colour(world_from_cam_44, K_33, direction_N3, fine_hits, 0.4, backdrop)
        rgb_N3[edge] = fine.reshape(len(edge), -1, 3).mean(axis=1)

    def _codes(self, world_from_cam_44, direction_N3, hits: Hits) -> np.ndarray:
        codes_N = np.zeros(len(direction_N3), np.uint8)
        hit_N = hits.hit_N
        if self.scene.landcover is None:
            codes_N[hit_N] = UNCLASSIFIED
        else:
            x, y = _plan_position(world_from_cam_44, direction_N3[hit_N], hits.t_N[hit_N])
            codes_N[hit_N] = self.scene.landcover.at(x, y)
        if hits.splat_N is not None:
            on_splat = hits.splat_N >= 0
            codes_N[on_splat] = self.scene.splats.codes_K[hits.splat_N[on_splat]]
        return codes_N

    def _labels(self, world_from_cam_44, K_33, pixel_direction_N3, pixel_hits: Hits, width: int, height: int):
        """Coordinates, depth and normals through the cell centres, NaN where nothing is hit."""
        stride = self.label_stride
        h, w = -(-height // stride), -(-width // stride)
        if stride == 1:
            direction_N3, hits = pixel_direction_N3, pixel_hits
        else:
            direction_N3 = pixel_directions(world_from_cam_44, K_33, *_cell_centres(width, height, stride))
            hits = self._cast(world_from_cam_44, direction_N3)
        t_N = np.where(hits.hit_N, hits.t_N, np.nan).astype(np.float64)
        # In float64 along the exact ray: the point projects onto its cell centre whatever the range.
        cam_N3 = _camera_rays(K_33, *_cell_centres(width, height, stride))
        points_N3 = world_from_cam_44[:3, 3] + t_N[:, None] * (cam_N3 @ world_from_cam_44[:3, :3].T)
        facing_N3 = _facing(hits.normal_N3, direction_N3)
        if stride > 1:
            facing_N3 = _cell_normals(facing_N3, direction_N3, pixel_direction_N3, pixel_hits, (height, width), stride)
        normal_N3 = facing_N3 @ world_from_cam_44[:3, :3]
        normal_N3 = np.where(hits.hit_N[:, None], normal_N3, np.nan)
        return (
            points_N3.T.reshape(3, h, w).astype(np.float32),
            t_N.reshape(h, w).astype(np.float32),
            normal_N3.T.reshape(3, h, w).astype(np.float32),
        )


def _below_sky(direction_N3: np.ndarray, ground_N3: np.ndarray) -> np.ndarray:
    """Sky above the horizon, the given colours below it, blended over 3 degrees."""
    sine_N = direction_N3[:, 2] / np.linalg.norm(direction_N3, axis=1)
    up = np.clip(sine_N, 0, 1)[:, None] ** np.float32(0.6)
    sky_N3 = _SKY_HORIZON + up * (_SKY_ZENITH - _SKY_HORIZON)
    below = np.clip(-sine_N / np.sin(np.deg2rad(3.0)), 0, 1)[:, None].astype(np.float32)
    return sky_N3 + below * (ground_N3 - sky_N3)


def _mirrored(position_N: np.ndarray, size: int) -> np.ndarray:
    """Positions brought into [0, size] by reflection at both ends."""
    return np.float32(size) - np.abs(np.mod(position_N, np.float32(2 * size)) - np.float32(size))


def _cell_centres(width: int, height: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel x and y of all cell centres, row by row, continuous pixels."""
    x = np.arange(-(-width // stride)) * stride + stride / 2
    y = np.arange(-(-height // stride)) * stride + stride / 2
    return np.tile(x, len(y)), np.repeat(y, len(x))


def _dot(vectors_N3: np.ndarray, vector_3: np.ndarray) -> np.ndarray:
    # Not @: BLAS would start its own threads under each of ours.
    return vectors_N3[:, 0] * vector_3[0] + vectors_N3[:, 1] * vector_3[1] + vectors_N3[:, 2] * vector_3[2]


def _camera_rays(K_33: np.ndarray, x_px_N: np.ndarray, y_px_N: np.ndarray) -> np.ndarray:
    return np.stack(((x_px_N - K_33[0, 2]) / K_33[0, 0], (y_px_N - K_33[1, 2]) / K_33[1, 1], np.ones_like(x_px_N)), 1)


def pixel_directions(world_from_cam_44: np.ndarray, K_33: np.ndarray, x_px_N: np.ndarray, y_px_N: np.ndarray) -> np.ndarray:
    """World rays float32 [N, 3] through pixels, with unit camera z: the ray parameter is the z-buffer depth."""
    R_33 = world_from_cam_44[:3, :3].astype(np.float32)
    x_N1 = ((x_px_N - K_33[0, 2]) / K_33[0, 0]).astype(np.float32)[:, None]
    y_N1 = ((y_px_N - K_33[1, 2]) / K_33[1, 1]).astype(np.float32)[:, None]
    return x_N1 * R_33[:, 0] + (y_N1 * R_33[:, 1] + R_33[:, 2])


def _plan_position(world_from_cam_44, direction_N3, t_N) -> tuple[np.ndarray, np.ndarray]:
    x_0, y_0 = world_from_cam_44[:2, 3].astype(np.float32)
    return x_0 + t_N * direction_N3[:, 0], y_0 + t_N * direction_N3[:, 1]


def _facing(normal_N3: np.ndarray, direction_N3: np.ndarray) -> np.ndarray:
    """Unit normals turned against the rays; zero where the normal has no length (misses)."""
    length_N = np.linalg.norm(normal_N3, axis=1)
    sign_N = np.where(np.einsum("ni,ni->n", normal_N3, direction_N3) > 0, -1.0, 1.0)
    return normal_N3 * (sign_N / np.maximum(length_N, 1e-30))[:, None]


def _cell_normals(
    centre_N3, direction_N3, pixel_direction_P3, pixel_hits: Hits, size: tuple[int, int], stride: int
) -> np.ndarray:
    """Mean facing normal over each cell, unit length [N, 3].

    One facet of a surface model is far smaller than a cell and mostly noise. Where the mean does not face the camera
    (a cell split between opposite walls) or no pixel of the cell was hit, the facet at the centre stands.
    """
    height, width = size
    h, w = -(-height // stride), -(-width // stride)
    # A quarter of the pixels (every second row and column) is enough for a mean.
    step = 2 if stride % 2 == 0 else 1
    normal_HW3, direction_HW3 = (a.reshape(height, width, 3) for a in (pixel_hits.normal_N3, pixel_direction_P3))
    normal_S3, direction_S3 = (a[::step, ::step].reshape(-1, 3) for a in (normal_HW3, direction_HW3))
    hit_SS = pixel_hits.hit_N.reshape(height, width)[::step, ::step]
    facing_SS3 = _facing(normal_S3, direction_S3).reshape(*hit_SS.shape, 3) * hit_SS[..., None]
    missing_rows, missing_columns = h * stride // step - hit_SS.shape[0], w * stride // step - hit_SS.shape[1]
    facing_SS3 = np.pad(facing_SS3, ((0, missing_rows), (0, missing_columns), (0, 0)))
    sum_N3 = cv2.resize(facing_SS3, (w, h), interpolation=cv2.INTER_AREA).reshape(-1, 3)
    length_N = np.linalg.norm(sum_N3, axis=1)
    mean_N3 = sum_N3 / np.maximum(length_N, 1e-6)[:, None]
    good_N = (length_N > 1e-3) & (np.einsum("ni,ni->n", mean_N3, direction_N3) < 0)
    return np.where(good_N[:, None], mean_N3, centre_N3)


def depth_edges(depth_HW: np.ndarray, K_33: np.ndarray) -> np.ndarray:
    """Pixels where the surface is not locally a plane at pixel scale, bool [H, W].

    Inverse depth is linear in the image on a plane, so its second difference, relative to itself, measures a bend.
    """
    inverse = np.where(np.isfinite(depth_HW), 1 / depth_HW, 0).astype(np.float32)
    bend = np.zeros_like(inverse)
    bend[:, 1:-1] = np.abs(inverse[:, 2:] - 2 * inverse[:, 1:-1] + inverse[:, :-2])
    bend[1:-1] = np.maximum(bend[1:-1], np.abs(inverse[2:] - 2 * inverse[1:-1] + inverse[:-2]))
    angle_px = 1 / min(K_33[0, 0], K_33[1, 1])
    return (bend > _EDGE_BEND * angle_px * inverse) & (bend > 0)
