"""Triangle mesh of a height grid with holes, and ray casting on it with Embree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene


@dataclass(frozen=True)
class Hits:
    """t_N: ray parameter of the first hit, +inf for a miss; normal_N3: upward facet normal, not unit length.

    splat_N: index of the splat that was hit, -1 for the mesh; None where there are no splats. Their normals face the ray.
    """

    t_N: np.ndarray
    normal_N3: np.ndarray
    splat_N: np.ndarray | None = None

    @property
    def hit_N(self) -> np.ndarray:
        return np.isfinite(self.t_N)


def height_mesh(x_c: np.ndarray, y_r: np.ndarray, heights_rc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangles through the finite nodes of a height grid.

    Args:
        x_c: easting of the columns. y_r: northing of the rows (descending). heights_rc: NaN where there is no surface.
    Returns:
        (vertices float32 [V, 3], triangles int32 [F, 3]), counter-clockwise seen from above. Each quad is cut along the
        diagonal with the smaller height difference, and a quad with three nodes gives one triangle.
    """
    finite = np.isfinite(heights_rc)
    node = np.full(heights_rc.shape, -1, np.int32)
    node[finite] = np.arange(finite.sum(), dtype=np.int32)
    xy = np.stack(np.broadcast_arrays(x_c[None], y_r[:, None]), -1)
    vertices = np.concatenate((xy[finite], heights_rc[finite][:, None]), 1).astype(np.float32)
    nw, ne, sw, se = node[:-1, :-1].ravel(), node[:-1, 1:].ravel(), node[1:, :-1].ravel(), node[1:, 1:].ravel()
    z_nw, z_ne = heights_rc[:-1, :-1].ravel(), heights_rc[:-1, 1:].ravel()
    z_sw, z_se = heights_rc[1:, :-1].ravel(), heights_rc[1:, 1:].ravel()
    along_nw_se = np.abs(z_nw - z_se) <= np.abs(z_ne - z_sw)
    # A missing corner leaves one triangle, on the diagonal that does not touch that corner.
    along_nw_se = np.where((ne < 0) | (sw < 0), True, np.where((nw < 0) | (se < 0), False, along_nw_se))
    first = np.where(along_nw_se[:, None], np.stack((nw, sw, se), 1), np.stack((nw, sw, ne), 1))
    second = np.where(along_nw_se[:, None], np.stack((nw, se, ne), 1), np.stack((sw, se, ne), 1))
    triangles = np.concatenate((first, second))
    return vertices, np.ascontiguousarray(triangles[(triangles >= 0).all(axis=1)])


class RayCaster:
    """Thread-safe closest-hit queries on a triangle mesh (Embree, watertight)."""

    def __init__(self, vertices_V3: np.ndarray, triangles_F3: np.ndarray, splat_corners_K43: np.ndarray | None = None):
        """Args: splat_corners_K43: squares beside the mesh, seen from both sides."""
        if len(triangles_F3) == 0:
            raise ValueError("the surface model has no valid cell to cast rays at")
        self._scene = EmbreeScene(robust=True)
        self._first_splat = None
        if splat_corners_K43 is not None:
            self._first_splat = len(triangles_F3)
            corner_K1 = len(vertices_V3) + 4 * np.arange(len(splat_corners_K43))[:, None]
            squares_F3 = (corner_K1[:, None] + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
            vertices_V3 = np.concatenate((vertices_V3, splat_corners_K43.reshape(-1, 3)))
            triangles_F3 = np.concatenate((triangles_F3, squares_F3))
        TriangleMesh(
            self._scene, np.ascontiguousarray(vertices_V3, np.float32), np.ascontiguousarray(triangles_F3, np.int32)
        )
        # The first query builds the hierarchy; do it before threads share the scene.
        self.cast(np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]]))

    def cast(self, origin_N3: np.ndarray, direction_N3: np.ndarray) -> Hits:
        """First hits of rays origin + t * direction, t > 0 in units of the direction's length."""
        origin = np.ascontiguousarray(origin_N3, np.float32)
        direction = np.ascontiguousarray(direction_N3, np.float32)
        answer = self._scene.run(origin, direction, output=True)
        t_N = answer["tfar"]
        t_N[answer["geomID"] < 0] = np.inf
        # Embree's normal follows the winding, which is counter-clockwise from above throughout the mesh.
        normal_N3 = answer["Ng"]
        if self._first_splat is None:
            return Hits(t_N, normal_N3)
        splat_N = np.where(np.isfinite(t_N), (answer["primID"].astype(np.int64) - self._first_splat) // 2, -1)
        splat_N = np.maximum(splat_N, -1)
        away_N = (splat_N >= 0) & (np.einsum("ni,ni->n", normal_N3, direction) > 0)
        normal_N3[away_N] *= -1
        return Hits(t_N, normal_N3, splat_N)
