"""Depths and normals against the scene coordinates of the same cells."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from geometry.angles import angle_between_deg

# Shares of the depth, and metres, by which depths may differ from the coordinates' (the benchmark rounds to 0.25 m).
_DEPTH_SHARE, _DEPTH_M = 0.01, 0.5
# Median angles between label normals and the surface through neighbouring cells: as on buildings and trees, and beyond.
_GOOD_DEG, _BAD_DEG = 25.0, 40.0
_AWAY = 0.2
_UNIT = 0.01
# Pixels over which the surface is measured: neighbours on the stride-8 grid.
_MAX_CELLS_ACROSS = 100
_FLIPPED_YZ_31 = torch.tensor([[1.0], [-1.0], [-1.0]], dtype=torch.float64)

# The kind that rough ground may cause too.
UNCERTAIN = "normal-mismatch"

Said = Iterator[tuple[str, str]]


def check_depth(
    p_cam_3hw: torch.Tensor, depth_1hw: torch.Tensor, valid_hw: torch.Tensor, cam_from_world_33: torch.Tensor
) -> Said:
    """Kinds and sentences of what is wrong with z-buffer depths.

    Args:
        p_cam_3hw: points of the cells in the camera frame, metres.
    """
    p_cam_3N, depth_N = p_cam_3hw[:, valid_hw], depth_1hw[0][valid_hw]
    z_N = p_cam_3N[2]
    if _agree(depth_N, z_N):
        return
    usual = {
        "distances from the camera instead of depths along its axis": torch.linalg.vector_norm(p_cam_3N, dim=0),
        "negative depths (OpenGL's z axis)": -z_N,
        "inverse depths": 1 / z_N,
        "millimetres instead of metres": 1000 * z_N,
        "centimetres instead of metres": 100 * z_N,
        "kilometres instead of metres": z_N / 1000,
        "feet instead of metres": z_N / 0.3048,
    }
    fits = [text for text, value_N in usual.items() if _agree(depth_N / value_N * z_N, z_N)]
    factor = float((depth_N / z_N).median())
    said = f"it holds {fits[0]}" if fits else f"in the median it is {factor:.4g} times theirs"
    yield "depth-mismatch", f"depth/ contradicts the scene coordinates: {said}"


def _agree(depth_N: torch.Tensor, z_N: torch.Tensor) -> bool:
    """Whether depths agree in the median."""
    return bool(((depth_N - z_N).abs() / (_DEPTH_SHARE * z_N.abs()).clamp(min=_DEPTH_M)).median() <= 1)


def check_normals(
    p_cam_3hw: torch.Tensor, normal_3hw: torch.Tensor, valid_hw: torch.Tensor, cam_from_world_33: torch.Tensor
) -> Said:
    """Kinds and sentences of what is wrong with camera-frame normals.

    Args:
        p_cam_3hw: points of the cells in the camera frame, metres.
        cam_from_world_33: for normals that turn out to be in the world frame.
    """
    length_N = torch.linalg.vector_norm(normal_3hw[:, valid_hw], dim=0)
    if float((length_N - 1).abs().median()) > _UNIT:
        yield "normal-length", f"normals are {float(length_N.median()):.3g} long in the median, 1 is meant"
        return
    surface_3N, label_3N, p_3N = _surface_normals(p_cam_3hw, normal_3hw, valid_hw)
    if surface_3N.shape[1] == 0:
        return
    stated_deg = _median_deg(label_3N, surface_3N)
    usual = {
        "they are in the world frame, the camera's is meant": cam_from_world_33 @ label_3N,
        "they point away from the camera": -label_3N,
        "their y and z axes are flipped (OpenGL)": _FLIPPED_YZ_31 * label_3N,
        "they are in the world frame and point away from the camera": -(cam_from_world_33 @ label_3N),
    }
    left_deg = {text: _median_deg(value_3N, surface_3N) for text, value_3N in usual.items()}
    best = min(left_deg, key=left_deg.get)
    if stated_deg > _GOOD_DEG and left_deg[best] < min(_GOOD_DEG, 0.5 * stated_deg):
        yield (
            "normal-frame",
            (
                f"normals are {stated_deg:.0f} degrees off the surface of the scene coordinates: {best} "
                f"({left_deg[best]:.0f} degrees with that put right)"
            ),
        )
    elif float(((label_3N * p_3N).sum(0) > 0).double().mean()) > _AWAY:
        yield "normal-frame", "normals of many cells point away from the camera; towards it is meant"
    elif stated_deg > _BAD_DEG:
        yield UNCERTAIN, f"normals are {stated_deg:.0f} degrees off the surface of the scene coordinates"


def _median_deg(a_3N: torch.Tensor, b_3N: torch.Tensor) -> float:
    return float(angle_between_deg(a_3N[None], b_3N[None]).median())


def _surface_normals(
    p_cam_3hw: torch.Tensor, normal_3hw: torch.Tensor, valid_hw: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unit normals [3, N] of the surface through neighbours two cells apart, labels and points there."""
    # Full-size cells are centimetres apart, less than the coordinates' rounding.
    step = max(1, valid_hw.shape[1] // _MAX_CELLS_ACROSS)
    p, n, v = p_cam_3hw[:, ::step, ::step], normal_3hw[:, ::step, ::step], valid_hw[::step, ::step]
    inner = v[1:-1, 1:-1] & v[1:-1, 2:] & v[1:-1, :-2] & v[2:, 1:-1] & v[:-2, 1:-1]
    across = p[:, 1:-1, 2:] - p[:, 1:-1, :-2]
    down = p[:, 2:, 1:-1] - p[:, :-2, 1:-1]
    surface = torch.linalg.cross(across, down, dim=0)
    length = torch.linalg.vector_norm(surface, dim=0)
    inner &= length > 0
    p_3N, surface_3N = p[:, 1:-1, 1:-1][:, inner], (surface / length.clamp(min=1e-12))[:, inner]
    facing_N = torch.where((surface_3N * p_3N).sum(0) > 0, -1.0, 1.0)
    return surface_3N * facing_N, n[:, 1:-1, 1:-1][:, inner], p_3N
