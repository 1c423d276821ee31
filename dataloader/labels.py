"""Reading poses, calibrations and label files; every problem names its file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from geometry.cameras import intrinsics_matrix, resize_intrinsics
from geometry.grid import NODATA, STRIDE, STRIDES, grid_size
from geometry.poses import check_pose
from records.tensors import first_line, load_tensors
from tasks import LAS_CODE_TO_CLASS, Task

# Photos and the labels' image are of one shape when their ratios of sides differ by less.
_SAME_SHAPE = 0.01
_MIN_LABEL_IMAGE_PX = 48
# A label that differs by so few cells from the photo's own coarse grid is one of the wrong size, not a small full-size one.
_MISTAKEN_CELLS = 2


def _read_numbers(path: Path, kind: str) -> np.ndarray:
    try:
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        return np.array(rows, dtype=np.float64)
    except FileNotFoundError:
        raise FileNotFoundError(f"{kind} file not found: {path}") from None
    except ValueError:
        raise ValueError(f"{kind} file {path} is not a table of numbers with rows of equal length") from None


def read_pose(path: Path) -> torch.Tensor:
    """Camera-to-world pose [4, 4] float64, metres; ValueError when it is not a rigid transform."""
    numbers = _read_numbers(path, "pose")
    if numbers.shape != (4, 4):
        raise ValueError(f"pose file {path} must hold 4 rows of 4 numbers, found shape {numbers.shape}")
    pose_44 = torch.from_numpy(numbers)
    check_pose(pose_44, f"pose file {path}")
    return pose_44


def read_calibration(path: Path, height_px: int, width_px: int) -> torch.Tensor:
    """Intrinsics [3, 3] float64 of the image as stored.

    The file holds one number (focal length, principal point at the image centre), four (fx fy cx cy) or a 3 x 3 matrix.
    """
    numbers = _read_numbers(path, "calibration")
    if numbers.shape == (3, 3):
        if abs(numbers[0, 1]) > 1e-9 or not np.allclose(numbers[2], [0, 0, 1]) or abs(numbers[1, 0]) > 1e-9:
            raise ValueError(f"calibration file {path}: only zero-skew matrices [fx 0 cx; 0 fy cy; 0 0 1] are supported")
        parameters = numbers[0, 0], numbers[1, 1], numbers[0, 2], numbers[1, 2]
    elif numbers.size == 1:
        parameters = numbers.item(), numbers.item(), width_px / 2, height_px / 2
    elif numbers.size == 4:
        parameters = tuple(numbers.ravel().tolist())
    else:
        raise ValueError(f"calibration file {path} must hold 1 number, 4 numbers or a 3 x 3 matrix, found {numbers.size}")
    try:
        return intrinsics_matrix(*parameters)
    except ValueError as error:
        raise ValueError(f"calibration file {path}: {error}") from None


def read_label(path: Path, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Reads a label file.

    Returns:
        (label, valid): label float32 [C, h, w] and bool [1, h, w]; semantics: class indices uint8 [1, H, W].
        Valid where no channel equals -1 and all are finite.
    """
    return _READERS[task.label_suffix](path, task)


def _strides(task: Task) -> tuple[int, ...]:
    """Those that labels of the task come in, the coarse one first."""
    return (task.stride(fullsize=True),) if task.fullsize_only else STRIDES


def label_stride(path: Path, map_Chw: torch.Tensor, height_px: int, width_px: int, task: Task) -> int:
    """Pixels per cell of a label, by its shape and its image's.

    Raises:
        ValueError: the shape fits no stride that labels of the task come in; names the file.
    """
    sizes = {stride: grid_size(height_px, width_px, stride) for stride in _strides(task)}
    found = tuple(map_Chw.shape[1:])
    for stride, size in sizes.items():
        if found == size:
            return stride
    wanted = " or ".join(f"{list(size)} (stride {stride})" for stride, size in sizes.items())
    raise ValueError(
        f"label file {path} has a map of {list(found)}, but its image is {height_px} x {width_px} and needs {wanted}"
    )


@dataclass(frozen=True)
class LabelCamera:
    """The image that a label was made for. Attributes: K_33, height_px, width_px: of it; stride: its pixels per cell."""

    K_33: torch.Tensor
    height_px: int
    width_px: int
    stride: int


def label_camera(
    path: Path, map_Chw: torch.Tensor, height_px: int, width_px: int, task: Task, K_33: torch.Tensor
) -> LabelCamera:
    """The image that a label was made for, given the size and intrinsics of its photo as stored.

    It is the photo itself unless that is larger than the labels' image and of the same shape (the benchmark may pair
    larger photos with the labels of 720 x 480 px renders, coarse or full-size). Where both strides fit, the cells see
    the same rays with either.

    Raises:
        ValueError: the label's shape fits neither; names the file.
    """
    try:
        return LabelCamera(K_33, height_px, width_px, label_stride(path, map_Chw, height_px, width_px, task))
    except ValueError:
        own = grid_size(height_px, width_px, STRIDE)
        if all(abs(cells - wanted) <= _MISTAKEN_CELLS for cells, wanted in zip(map_Chw.shape[1:], own, strict=True)):
            raise
        for stride in _strides(task):
            height, width = (stride * cells for cells in map_Chw.shape[1:])
            scale_x, scale_y = width / width_px, height / height_px
            smaller = max(scale_x, scale_y) < 1 and height >= _MIN_LABEL_IMAGE_PX
            if smaller and abs(scale_x / scale_y - 1) <= _SAME_SHAPE:
                return LabelCamera(resize_intrinsics(K_33, scale_x, scale_y), height, width, stride)
        raise


def stored_map(path: Path) -> torch.Tensor:
    """The tensor in a label file, as stored; ValueError or FileNotFoundError names the file."""
    label = load_tensors(path, "label file")
    if not isinstance(label, torch.Tensor):
        raise ValueError(f"label file {path} holds a {type(label).__name__}, not a tensor")
    return label


def stored_classes(path: Path) -> np.ndarray:
    """The array of class codes in a label file, as stored; ValueError or FileNotFoundError names the file."""
    try:
        with path.open("rb") as file:  # np.load would take archives and pickles for arrays too
            return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"label file not found: {path}") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"label file {path} cannot be read: {first_line(error)}") from None


def _read_map(path: Path, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    label = stored_map(path)
    if task.label_channels == 0 and label.ndim == 2:
        label = label[None]
    expected = max(task.label_channels, 1)
    if label.ndim != 3 or label.shape[0] != expected:
        raise ValueError(f"label file {path} must have shape [{expected}, h, w], found {list(label.shape)}")
    label = label.float()
    valid_1hw = ((label != NODATA) & torch.isfinite(label)).all(0, keepdim=True)
    return torch.where(valid_1hw, label, 0.0), valid_1hw


def _read_classes(path: Path, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    codes_HW = stored_classes(path)
    if codes_HW.ndim != 2:
        raise ValueError(f"label file {path} must have shape [H, W], found {list(codes_HW.shape)}")
    table = np.full(256, 255, np.uint8)
    for code, class_index in LAS_CODE_TO_CLASS.items():
        table[code] = class_index
    unknown = sorted(set(np.unique(codes_HW).tolist()) - set(LAS_CODE_TO_CLASS))
    if unknown:
        raise ValueError(f"label file {path}: LAS codes {unknown} have no class; known are {sorted(LAS_CODE_TO_CLASS)}")
    classes_1HW = torch.from_numpy(table[codes_HW.astype(np.uint8)])[None]
    return classes_1HW, torch.ones_like(classes_1HW, dtype=torch.bool)


_READERS = {".dat": _read_map, ".npy": _read_classes}
