"""C++ core of dsacstar; use the functions of the package instead."""

from numpy.typing import NDArray
import numpy as np

def instruction_set() -> str: ...
def solve(
    scene_coords: NDArray[np.float32],
    camera_coords: NDArray[np.float32] | None,
    intrinsics: NDArray[np.float64] | None,
    sigma: NDArray[np.float32] | None,
    mask: NDArray[np.uint8] | None,
    subsampling: float,
    hypotheses: int,
    threshold: float,
    inlier_alpha: float,
    max_error: float,
    max_tries: int,
    candidates: int,
    max_rounds: int,
    threads: int,
    seed: int,
) -> list[tuple[bool, NDArray[np.float64], int, NDArray[np.uint8], float, int, NDArray[np.float64], float]]: ...
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
