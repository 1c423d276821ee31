"""What callers hand over, checked and turned into numpy arrays. Every error names the argument."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np


def is_tensor(value: Any) -> bool:
    """Whether value is a torch tensor; torch is never imported here."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_numpy(value: Any, name: str) -> np.ndarray:
    """A numpy view of a CPU tensor or an array (a copy only where the type demands it).

    Raises:
        TypeError: value is neither an array nor a tensor.
        ValueError: a tensor that is not on the CPU.
    """
    if is_tensor(value):
        if value.device.type != "cpu":
            raise ValueError(f"{name} is on device {str(value.device)!r}; move it with .cpu() first")
        value = value.detach()
        if value.is_sparse:
            raise TypeError(f"{name} is a sparse tensor; pass .to_dense()")
        if value.is_floating_point() and value.element_size() < 4:
            value = value.float()  # bfloat16 has no numpy type
        array: np.ndarray = value.numpy()
        return array
    if isinstance(value, np.ndarray):
        return value
    raise TypeError(f"{name} must be a numpy array or a torch CPU tensor, not {type(value).__name__}")


def float_array(value: Any, name: str, shape: Sequence[int | None], dtype: type = np.float32) -> np.ndarray:
    """C-contiguous floating-point array of the given shape (None: any size), converted if need be.

    Raises:
        TypeError: not real numbers. ValueError: wrong shape, or not on the CPU.
    """
    array = as_numpy(value, name)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers (float32), not {array.dtype}")
    check_shape(array, name, shape)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, dtype=dtype)


def check_shape(array: np.ndarray, name: str, shape: Sequence[int | None]) -> None:
    """Raises ValueError unless the shape fits; None fits any size."""
    fits = array.ndim == len(shape) and all(want is None or want == have for want, have in zip(shape, array.shape))
    if not fits:
        wanted = "[" + ", ".join("*" if size is None else str(size) for size in shape) + "]"
        raise ValueError(f"{name} has shape {list(array.shape)}, expected {wanted}")


def output_array(value: Any, name: str, shape: Sequence[int | None]) -> np.ndarray:
    """The caller's output as a numpy array that shares its memory.

    Raises:
        TypeError: not float32 or float64. ValueError: wrong shape, read-only, or not on the CPU.
    """
    array = as_numpy(value, name)
    if array.dtype not in (np.float32, np.float64) or (is_tensor(value) and value.element_size() < 4):
        raise TypeError(f"{name} must be float32 or float64 to be written into, not {getattr(value, 'dtype', None)}")
    check_shape(array, name, shape)
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only")
    return array


def whole_number(value: Any, name: str, least: int, most: int = 2**31 - 1) -> int:
    """An int within [least, most].

    Raises:
        TypeError: not a whole number. ValueError: out of range.
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not bool")
    try:
        number = value.__index__() if hasattr(value, "__index__") else int(value)
        exact = number == value
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if not exact:
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if not least <= number <= most:
        raise ValueError(f"{name} is {number}, expected {least} to {most}")
    return number


def real_number(value: Any, name: str, *, least: float | None = None, above: float | None = None) -> float:
    """A finite float, at least `least`, greater than `above`.

    Raises:
        TypeError: not a number. ValueError: out of range or not finite.
    """
    if isinstance(value, (bool, str, bytes)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}, expected a finite number")
    if least is not None and number < least:
        raise ValueError(f"{name} is {number}, expected at least {least}")
    if above is not None and number <= above:
        raise ValueError(f"{name} is {number}, expected more than {above}")
    return number


def check_clamp(clamp: Any, name: str, threshold: float, threshold_name: str) -> float:
    """A clamp of errors, which must leave room for what the threshold decides.

    Raises:
        TypeError: not a number. ValueError: not positive, or below the threshold.
    """
    number = real_number(clamp, name, above=0.0)
    if number < threshold:
        raise ValueError(f"{name} is {number}, below {threshold_name} {threshold}: every error would be an inlier's")
    return number
