"""Labelled point clouds (LAS, LAZ): classes of the ground, and geometry that a height grid cannot hold."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyproj
from rasterio.crs import CRS
from scipy.spatial import cKDTree

from datagen import frames

log = logging.getLogger(__name__)

SUFFIXES = (".las", ".laz")
# LAS classes that are no surface, and finer ones of vegetation than are told apart here.
_NOISE = (7, 18)
_SAME_CLASS = {4: 3, 5: 3}
_CHUNK = 2_000_000
# Splats: points that span one's plane, and a splat's side as a share of the distance of points, so that gaps close.
_NEIGHBOURS, _OVERLAP = 9, 1.4
# More would not fit beside the mesh of a surface.
_MAX_SPLATS = 20_000_000


@dataclass(frozen=True)
class PointCloud:
    """xyz_N3: float64, metres, in the CRS that was asked for. codes_N: LAS classes. rgb_N3: uint8, None without colours."""

    xyz_N3: np.ndarray
    codes_N: np.ndarray
    rgb_N3: np.ndarray | None


@dataclass(frozen=True)
class Splats:
    """Squares [K] at the points of a cloud: corners float64 [K, 4, 3], LAS classes [K], colours uint8 [K, 3] or None."""

    corners_K43: np.ndarray
    codes_K: np.ndarray
    rgb_K3: np.ndarray | None


def are_clouds(paths: Sequence[Path]) -> bool:
    """Whether files are point clouds, by their endings; ValueError when some are and some are not."""
    clouds = [Path(path).suffix.lower() in SUFFIXES for path in paths]
    if any(clouds) and not all(clouds):
        raise ValueError(f"{paths[0]} and {len(paths) - 1} more: point clouds and rasters together are no layer")
    return any(clouds)


def read_point_cloud(
    paths: Sequence[Path], crs: CRS, declared_crs: CRS | None, bounds: tuple[float, float, float, float], spacing_m: float
) -> PointCloud:
    """Points within bounds (left, bottom, right, top in crs), one in each cube of `spacing_m`; noise is left out.

    Args:
        declared_crs: of files that have none; None: such files are in crs, which is said.
    Raises:
        FileNotFoundError, ValueError: missing or damaged files, no laspy, or no point within the bounds.
    """
    try:
        import laspy
    except ImportError:
        raise ValueError(f"{paths[0]}: point clouds need the package laspy (pip install laspy lazrs)") from None
    kept: dict[bytes, None] = {}
    parts = []
    for path in paths:
        if not Path(path).is_file():
            raise FileNotFoundError(f"point cloud {path}: no such file")
        try:
            for xyz_N3, codes_N, rgb_N3 in _chunks(laspy, Path(path), crs, declared_crs):
                inside_N = (xyz_N3[:, :2] >= bounds[:2]).all(axis=1) & (xyz_N3[:, :2] <= bounds[2:]).all(axis=1)
                which = np.flatnonzero(inside_N & ~np.isin(codes_N, _NOISE))
                which = which[_first_in_cubes(xyz_N3[which], bounds, spacing_m, kept)]
                parts.append((xyz_N3[which], codes_N[which], None if rgb_N3 is None else rgb_N3[which]))
        except (laspy.errors.LaspyException, OSError, ValueError, EOFError) as error:
            raise ValueError(f"point cloud {path}: cannot be read, is it truncated? ({error})") from None
    if not parts or not sum(len(part[0]) for part in parts):
        raise ValueError(f"point cloud {paths[0]}: no point inside the surface model's extent; is it in another CRS?")
    coloured = all(rgb_N3 is not None for _, _, rgb_N3 in parts)
    codes_N = np.concatenate([codes for _, codes, _ in parts])
    for code, same in _SAME_CLASS.items():
        codes_N[codes_N == code] = same
    rgb_N3 = np.concatenate([rgb for _, _, rgb in parts]) if coloured else None
    return PointCloud(np.concatenate([xyz for xyz, _, _ in parts]), codes_N, rgb_N3)


def _chunks(laspy, path: Path, crs: CRS, declared_crs: CRS | None) -> Iterator[tuple]:
    """Coordinates in crs, classes and colours of a file, a part at a time."""
    with laspy.open(path) as reader:
        own = reader.header.parse_crs()
        metres = 1.0
        if own is not None:
            vertical = next((part for part in own.sub_crs_list if part.is_vertical), None) if own.is_compound else None
            metres = vertical.axis_info[0].unit_conversion_factor if vertical is not None else 1.0
            own = frames.horizontal(CRS.from_wkt(own.to_wkt()))
        else:
            own = declared_crs or crs
            log.info("point cloud %s declares no CRS: taken as %s", path, frames.label(own))
        to_crs = None
        if own != crs and not (frames.is_local(own) and frames.is_local(crs)):
            to_crs = pyproj.Transformer.from_crs(frames.full(own), frames.full(crs), always_xy=True)
        read = 0
        for points in reader.chunk_iterator(_CHUNK):
            read += len(points)
            xyz_N3 = np.stack((points.x, points.y, np.asarray(points.z) * metres), 1).astype(np.float64)
            if to_crs is not None:
                xyz_N3[:, :2] = np.stack(to_crs.transform(xyz_N3[:, 0], xyz_N3[:, 1]), 1)
            yield xyz_N3, np.asarray(points.classification).astype(np.uint8), _colours(points)
        if read != reader.header.point_count:
            raise ValueError(f"{read:,} of {reader.header.point_count:,} points are there")


def _colours(points) -> np.ndarray | None:
    """uint8 [N, 3]: LAS colours are 16 bits wide, but many programs write 8."""
    if "red" not in points.point_format.dimension_names:
        return None
    rgb_N3 = np.stack((points.red, points.green, points.blue), 1)
    if len(rgb_N3) == 0 or rgb_N3.max() == 0:
        return None
    return (rgb_N3 >> 8 if rgb_N3.max() > 255 else rgb_N3).astype(np.uint8)


def _first_in_cubes(xyz_N3: np.ndarray, bounds, spacing_m: float, kept: dict[bytes, None]) -> np.ndarray:
    """Indices of points whose cube holds none yet, in order; `kept` remembers the cubes between calls."""
    cube_N3 = np.floor((xyz_N3 - (bounds[0], bounds[1], 0)) / spacing_m).astype(np.int32)
    _, first = np.unique(cube_N3, axis=0, return_index=True)
    fresh = []
    for index in np.sort(first):
        cube = cube_N3[index].tobytes()
        if cube not in kept:
            kept[cube] = None
            fresh.append(index)
    return np.array(fresh, np.int64)


def classes_at(cloud: PointCloud, xyz_N3: np.ndarray, reach_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Class of the nearest point int64 [N], and whether there is one within reach."""
    distance_N, nearest_N = cKDTree(cloud.xyz_N3).query(np.nan_to_num(xyz_N3), distance_upper_bound=reach_m)
    found_N = np.isfinite(distance_N) & np.isfinite(xyz_N3).all(axis=1)
    codes_N = np.zeros(len(xyz_N3), np.int64)
    codes_N[found_N] = cloud.codes_N[nearest_N[found_N]]
    return codes_N, found_N


def splats_of(cloud: PointCloud, spacing_m: float) -> Splats:
    """A square in the plane of each point and its neighbours.

    Raises:
        ValueError: too many.
    """
    if len(cloud.xyz_N3) > _MAX_SPLATS:
        raise ValueError(f"{len(cloud.xyz_N3):,} points are more than {_MAX_SPLATS:,}; choose a larger --point_spacing")
    count = min(_NEIGHBOURS, len(cloud.xyz_N3))
    _, near_NK = cKDTree(cloud.xyz_N3).query(cloud.xyz_N3, k=count)
    near_NK3 = cloud.xyz_N3[near_NK.reshape(len(cloud.xyz_N3), count)]
    offset_NK3 = near_NK3 - near_NK3.mean(axis=1, keepdims=True)
    # Eigenvectors by rising spread: the first stands on the plane, the others span it.
    _, axes_N33 = np.linalg.eigh(np.einsum("nki,nkj->nij", offset_NK3, offset_NK3))
    half_m = 0.5 * _OVERLAP * spacing_m
    u_N3, v_N3 = half_m * axes_N33[:, :, 1], half_m * axes_N33[:, :, 2]
    p_N3 = cloud.xyz_N3
    corners_N43 = np.stack((p_N3 - u_N3 - v_N3, p_N3 + u_N3 - v_N3, p_N3 + u_N3 + v_N3, p_N3 - u_N3 + v_N3), 1)
    return Splats(corners_N43, cloud.codes_N, cloud.rgb_N3)
