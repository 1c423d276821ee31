"""C++ core of dsacstar; use the functions of the package instead."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

def instruction_set() -> str: ...
def force_instruction_set(name: str) -> bool: ...
def solve(
    scene_coords: NDArray[np.float32],
    camera_coords: NDArray[np.float32] | None,
    intrinsics: NDArray[np.float64] | None,
    sigma: NDArray[np.float32] | None,
    mask: NDArray[np.uint8] | None,
    priors: NDArray[np.float64] | None,
    subsampling: float,
    hypotheses: int,
    most_hypotheses: int,
    threshold: float,
    inlier_alpha: float,
    max_error: float,
    max_tries: int,
    candidates: int,
    max_rounds: int,
    pixel_residual: bool,
    threads: int,
    seed: int,
) -> list[dict[str, Any]]: ...
def expected_loss(
    scene_coords: NDArray[np.float32],
    camera_coords: NDArray[np.float32] | None,
    intrinsics: NDArray[np.float64] | None,
    world_from_cam: NDArray[np.float64],
    subsampling: float,
    hypotheses: int,
    threshold: float,
    inlier_alpha: float,
    max_error: float,
    max_tries: int,
    w_rot: float,
    w_trans: float,
    soft_clamp: float,
    seed: int,
) -> tuple[float, int, NDArray[np.float64]]: ...
def pose_losses(
    scene_coords: NDArray[np.float32],
    camera_coords: NDArray[np.float32] | None,
    intrinsics: NDArray[np.float64] | None,
    mask: NDArray[np.uint8] | None,
    world_from_cam: NDArray[np.float64],
    subsampling: float,
    hypotheses: int,
    threshold: float,
    inlier_alpha: float,
    max_tries: int,
    pixel_residual: bool,
    w_rot: float,
    w_trans: float,
    soft_clamp: float,
    threads: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]: ...
