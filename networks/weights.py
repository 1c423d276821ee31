"""Weights files: a plain `torch.save`d state dict, read without unpickling anything else."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import torch

from networks.architecture import architecture_of
from networks.transposenet import TransPoseNet


def load_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads a weights file onto the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a state dict, or holds NaN or infinite values; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file not found: {path}")
    try:
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a readable weights file: {reason}") from error
    if not isinstance(state_dict, dict) or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise ValueError(f"{path} is not a weights file: it holds something else than named tensors")
    for key, value in state_dict.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{path}: {key!r} holds NaN or infinite values")
    return state_dict


def load_network(path: str | Path, *, head_scale: float = 1.0) -> TransPoseNet:
    """The network that a weights file describes, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError, ValueError: as `load_state_dict`, or the file's tensors are not a network's; names the file.
    """
    state_dict = load_state_dict(path)
    try:
        net = TransPoseNet(architecture_of(state_dict))
        net.head_scale = head_scale
        net.load_published(state_dict)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return net.to(memory_format=torch.channels_last).eval()


def save_network(net: TransPoseNet, path: str | Path) -> None:
    """Writes the published form of the weights; the file appears complete or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(net.published_state_dict(), temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
