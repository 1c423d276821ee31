"""What a photo shows on the ground: the place of a pixel, and the outline of the whole, by rays cast at the surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datagen.render import pixel_directions
from datagen.scene import GeoScene
from exports.georeference import Georeference
from localization.answer import Answer

_POINTS_PER_SIDE = 16
_INSIDE_STEPS, _BISECTIONS = 24, 10
_COARSE = 24


@dataclass(frozen=True)
class GroundPoint:
    """Where a pixel's ray meets the surface.

    Attributes:
        world_3: local coordinates, metres.
        longitude_deg, latitude_deg: WGS 84; None where the geodata are tied to no place on Earth.
        height_m: in the surface model's CRS. datum: what it is above.
        distance_m: from the camera.
        sigma_m: standard deviation of the horizontal position from the pose's covariance; None where that is not known.
    """

    world_3: np.ndarray
    longitude_deg: float | None
    latitude_deg: float | None
    height_m: float
    datum: str
    distance_m: float
    sigma_m: float | None


def locate(answer: Answer, pixel_xy: tuple[float, float], surface: GeoScene) -> GroundPoint:
    """The place that a pixel of a photo shows.

    Args:
        pixel_xy: continuous pixels of the upright photo: (0, 0) is its upper left corner, pixel (i, j) has its centre at
            (i + 1/2, j + 1/2).
        surface: the geodata, in the frame of the answer.
    Raises:
        ValueError: the photo has no pose, the pixel is not in it, or its ray meets no surface.
    """
    if not answer.success:
        raise ValueError(f"{answer.name} has no pose, so its pixels have no place")
    (x, y), (width, height) = pixel_xy, answer.size_wh
    if not (0 <= x <= width and 0 <= y <= height):
        raise ValueError(f"pixel ({x:g}, {y:g}) is not in {answer.name}, which has {width} x {height} pixels")
    point_3 = ground_points(answer.world_from_cam_44, answer.K_33, np.array([[x, y]]), surface)[0]
    if not np.isfinite(point_3).all():
        raise ValueError(f"pixel ({x:g}, {y:g}) of {answer.name} shows no part of the surface model")
    distance_m = float(np.linalg.norm(point_3 - answer.world_from_cam_44[:3, 3]))
    sigma_m = _ground_sigma(answer, np.array([x, y]), point_3)
    try:
        georeference = Georeference.of_surface(surface)
    except ValueError:  # a local frame: its own coordinates are all there is
        return GroundPoint(point_3, None, None, float(point_3[2] + surface.origin_xyz[2]), "local", distance_m, sigma_m)
    lon, lat, height_m = (float(value) for value in georeference.lonlat_height(point_3)[0])
    return GroundPoint(point_3, lon, lat, height_m, georeference.datum, distance_m, sigma_m)


def ground_points(world_from_cam_44: np.ndarray, K_33: np.ndarray, xy_N2: np.ndarray, surface: GeoScene) -> np.ndarray:
    """Local points [N, 3] where the rays of pixels [N, 2] meet the surface; NaN where they meet none."""
    direction_N3 = pixel_directions(world_from_cam_44, K_33, xy_N2[:, 0], xy_N2[:, 1])
    origin_N3 = np.broadcast_to(world_from_cam_44[:3, 3], direction_N3.shape)
    hits = surface.raycaster.cast(origin_N3, direction_N3)
    t_N = np.where(hits.hit_N, hits.t_N, np.nan).astype(np.float64)
    # Along the exact ray: the point projects onto its pixel whatever the range.
    x_N, y_N = (xy_N2[:, axis] - K_33[axis, 2] for axis in range(2))
    ray_N3 = np.stack((x_N / K_33[0, 0], y_N / K_33[1, 1], np.ones(len(xy_N2))), 1) @ world_from_cam_44[:3, :3].T
    return world_from_cam_44[:3, 3] + t_N[:, None] * ray_N3


def footprint(answer: Answer, surface: GeoScene) -> np.ndarray | None:
    """Outline [N, 3] on the surface of what the photo shows of it, local coordinates, clockwise in the photo; not closed.

    Where the photo's border shows the sky or leaves the data, the outline runs inside, along what the photo still shows.
    None when it shows no surface at all.
    """
    width, height = answer.size_wh

    def cast(xy_N2: np.ndarray) -> np.ndarray:
        return ground_points(answer.world_from_cam_44, answer.K_33, xy_N2, surface)

    inside_2 = _seen_pixel(cast, width, height)
    if inside_2 is None:
        return None
    border_N2 = _border(width, height)
    # From the border towards a pixel that sees the surface: the first that does, narrowed down to a fraction of a pixel.
    share_S = np.linspace(0.0, 1.0, _INSIDE_STEPS)
    xy_NS2 = border_N2[:, None] + share_S[:, None] * (inside_2 - border_N2)[:, None]
    seen_NS = np.isfinite(cast(xy_NS2.reshape(-1, 2))[:, 0]).reshape(len(border_N2), -1)
    seen_NS[:, -1] = True
    first_N = seen_NS.argmax(1)
    far_N, near_N = share_S[np.maximum(first_N - 1, 0)], share_S[first_N]
    for _ in range(_BISECTIONS):
        middle_N = 0.5 * (far_N + near_N)
        seen_N = np.isfinite(cast(border_N2 + middle_N[:, None] * (inside_2 - border_N2))[:, 0])
        far_N, near_N = np.where(seen_N, far_N, middle_N), np.where(seen_N, middle_N, near_N)
    outline_N3 = cast(border_N2 + near_N[:, None] * (inside_2 - border_N2))
    outline_N3 = outline_N3[np.isfinite(outline_N3[:, 0])]
    return outline_N3 if len(outline_N3) >= 3 else None


def _seen_pixel(cast, width: int, height: int) -> np.ndarray | None:
    """A pixel in the middle of those that see the surface."""
    x, y = np.meshgrid((np.arange(_COARSE) + 0.5) / _COARSE * width, (np.arange(_COARSE) + 0.5) / _COARSE * height)
    xy_N2 = np.stack((x.ravel(), y.ravel()), 1)
    seen_M2 = xy_N2[np.isfinite(cast(xy_N2)[:, 0])]
    if len(seen_M2) == 0:
        return None
    return seen_M2[np.linalg.norm(seen_M2 - seen_M2.mean(0), axis=1).argmin()]


def _border(width: int, height: int) -> np.ndarray:
    """Points [N, 2] along the photo's border, clockwise from the upper left corner."""
    share = np.arange(_POINTS_PER_SIDE) / _POINTS_PER_SIDE
    x, y, zero = share * width, share * height, np.zeros(_POINTS_PER_SIDE)
    sides = ((x, zero), (zero + width, y), (width - x, zero + height), (zero, height - y))
    return np.concatenate([np.stack(side, 1) for side in sides])


def _ground_sigma(answer: Answer, xy_2: np.ndarray, point_3: np.ndarray) -> float | None:
    """Root mean square horizontal deviation of a ground point by the pose's covariance; None where that is not known.

    On level ground through the point: the facets of a surface model are too rough to differentiate along.
    """
    R_33, K_33 = answer.world_from_cam_44[:3, :3], answer.K_33
    ray_3 = np.array([(xy_2[0] - K_33[0, 2]) / K_33[0, 0], (xy_2[1] - K_33[1, 2]) / K_33[1, 1], 1.0])
    direction_3 = R_33 @ ray_3
    if not np.isfinite(answer.covariance_66).all() or abs(direction_3[2]) < 1e-6:
        return None
    depth_m = float((point_3 - answer.world_from_cam_44[:3, 3]) @ direction_3 / (direction_3 @ direction_3))
    # A turn v in camera axes moves the ray's end by depth R (v x ray), a shift of the centre by itself.
    x, y, z = ray_3
    cross_33 = np.array([[0.0, z, -y], [-z, 0.0, x], [y, -x, 0.0]])  # v x ray = cross v
    moved_36 = np.concatenate((depth_m * R_33 @ cross_33, np.eye(3)), 1)
    J_26 = (moved_36 - np.outer(direction_3 / direction_3[2], moved_36[2]))[:2]
    return float(np.sqrt(np.trace(J_26 @ answer.covariance_66 @ J_26.T)))
