"""The device and the arithmetic, chosen once per command."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import torch

from records.tensors import first_line

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "bf16", "float32")
_CPU_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def choose_device(name: str) -> torch.device:
    """`auto`: CUDA when there is one. ValueError when the named device is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used: {first_line(error)}") from None
    return device


@cache
def _cpu_multiplies_bf16() -> bool:
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return False
    return bool(_CPU_BF16_FLAGS & set(flags.split()))


def resolved_precision(device: torch.device, precision: str) -> str:
    """bf16 or float32; auto is bf16 where the device multiplies in it. ValueError for an unknown precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown --precision {precision!r}; choose from {list(PRECISIONS)}")
    if precision != "auto":
        return precision
    capable = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_multiplies_bf16()
    return "bf16" if capable else "float32"


def autocast_for(device: torch.device, precision: str) -> AbstractContextManager:
    """The arithmetic of a network's pass; see `resolved_precision`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=resolved_precision(device, precision) == "bf16")
