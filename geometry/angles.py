"""Surface normals as two angles, and angles between directions."""

from __future__ import annotations

import torch


def angles_from_normal(normal_B3N: torch.Tensor) -> torch.Tensor:
    """Azimuth atan2(y, x) and elevation atan2(z, hypot(x, y)), stacked [B, 2, N], radians."""
    x, y, z = normal_B3N.unbind(1)
    return torch.stack((torch.atan2(y, x), torch.atan2(z, torch.hypot(x, y))), 1)


def normal_from_angles(angles_B2N: torch.Tensor) -> torch.Tensor:
    """Unit vectors [B, 3, N] from azimuth and elevation [B, 2, N] in radians."""
    azimuth, elevation = angles_B2N.unbind(1)
    horizontal = torch.cos(elevation)
    return torch.stack((horizontal * torch.cos(azimuth), horizontal * torch.sin(azimuth), torch.sin(elevation)), 1)


def angle_between_deg(a_B3N: torch.Tensor, b_B3N: torch.Tensor) -> torch.Tensor:
    """Angle in degrees [B, N] between vectors [B, 3, N]; exact near 0 and 180."""
    cross = torch.linalg.norm(torch.linalg.cross(a_B3N, b_B3N, dim=1), dim=1)
    return torch.rad2deg(torch.atan2(cross, (a_B3N * b_B3N).sum(1)))
