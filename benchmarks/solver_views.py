"""Synthetic aerial views with known truth for the solver's benchmarks and tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class View:
    """One synthetic image: what a network would predict and what is true."""

    coords_13hw: np.ndarray  # float32, metres, noise and outliers included
    sigma_1hw: np.ndarray  # float32, the true standard deviation of every cell, metres
    truth_3N: np.ndarray  # exact coordinates
    world_from_cam_44: np.ndarray
    focal_px: float
    cx: float
    cy: float
    subsampling: int

    @property
    def intrinsics(self) -> list[float]:
        return [self.focal_px, self.focal_px, self.cx, self.cy]


def camera_pose(rng: np.random.Generator) -> np.ndarray:
    """World from camera: 120-200 m above the ground, pitch -35 to -80 deg, roll within 5 deg, any heading."""
    pitch, yaw = np.radians(rng.uniform(-80, -35)), rng.uniform(0, 2 * np.pi)
    roll = np.radians(rng.uniform(-5, 5))
    forward = np.array([np.cos(pitch) * np.sin(yaw), np.cos(pitch) * np.cos(yaw), np.sin(pitch)])
    right = np.array([np.cos(yaw), -np.sin(yaw), 0.0])
    axes = np.stack([right, np.cross(forward, right), forward], axis=1)
    turn = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3] = axes @ turn
    pose[:3, 3] = [rng.uniform(-100, 100), rng.uniform(-100, 100), rng.uniform(120, 200)]
    return pose


def surface_points(rng: np.random.Generator, pose: np.ndarray, rays_3N: np.ndarray, relief: float) -> np.ndarray:
    """Where the rays first meet a rolling ground of +-relief metres (rays that miss end 900 m away)."""
    phase, wave = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.01, 0.04, (2, 2)) * rng.choice([-1, 1], (2, 2))
    directions_3N = pose[:3, :3] @ rays_3N
    centre_31 = pose[:3, 3:]

    def below_N(depth_N: np.ndarray) -> np.ndarray:
        x, y, z = centre_31 + directions_3N * depth_N
        ground = sum(np.sin(wave[i, 0] * x + wave[i, 1] * y + phase[i]) for i in range(2)) * relief / 2
        return z < ground

    far = 900.0
    lower = np.full(rays_3N.shape[1], 50.0)
    for _ in range(425):
        ahead = np.minimum(lower + 2.0, far)
        lower = np.where(below_N(ahead), lower, ahead)
    upper = np.minimum(lower + 2.0, far)
    for _ in range(24):
        middle = 0.5 * (lower + upper)
        is_below = below_N(middle)
        upper, lower = np.where(is_below, middle, upper), np.where(is_below, lower, middle)
    return centre_31 + directions_3N * upper


def make_view(
    seed: int,
    noise_m: float,
    outlier_share: float,
    *,
    height: int = 60,
    width: int = 90,
    focal_px: float = 480.0,
    subsampling: int = 8,
    outlier_spread_m: float = 60.0,
    relief_m: float = 20.0,
) -> View:
    """An aerial view: isotropic Gaussian coordinate noise, a share of cells with the outlier spread instead."""
    rng = np.random.default_rng(seed)
    cx, cy = width * subsampling / 2, height * subsampling / 2
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays_3N = np.stack(
        [(cols * subsampling - cx) / focal_px, (rows * subsampling - cy) / focal_px, np.ones_like(cols)]
    ).reshape(3, -1)
    pose = camera_pose(rng)
    truth_3N = surface_points(rng, pose, rays_3N, relief_m)
    sigma_N = np.where(rng.random(truth_3N.shape[1]) < outlier_share, outlier_spread_m, noise_m)
    coords_3N = truth_3N + rng.standard_normal(truth_3N.shape) * sigma_N
    return View(
        coords_13hw=np.ascontiguousarray(coords_3N.reshape(1, 3, height, width), dtype=np.float32),
        sigma_1hw=np.maximum(sigma_N, 1e-3).reshape(1, height, width).astype(np.float32),
        truth_3N=truth_3N,
        world_from_cam_44=pose,
        focal_px=focal_px,
        cx=cx,
        cy=cy,
        subsampling=subsampling,
    )


def pose_error(pose: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """(distance of the camera centres in metres, angle in degrees)."""
    chord = np.linalg.norm(np.asarray(pose)[:3, :3] - truth[:3, :3]) / np.sqrt(8)
    return float(np.linalg.norm(np.asarray(pose)[:3, 3] - truth[:3, 3])), float(np.degrees(2 * np.arcsin(min(1.0, chord))))
