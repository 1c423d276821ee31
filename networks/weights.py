"""Weights files: a plain `torch.save`d state dict, read without unpickling anything else, or safetensors."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from networks.architecture import architecture_of
from networks.build import build
from networks.foreign_files import foreign_kind, is_safetensors
from networks.head import load_published, published_state_dict, set_head_scale
from networks.safetensors_file import SUFFIX, read_safetensors
from networks.transposenet import DenseNetwork
from records.tensors import damaged_entry, first_line, save_tensors

_EXPECTED = "expected a plain state dict: tensors by name"


def load_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads a weights file onto the CPU, as float32; the name's ending tells safetensors from torch's format.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something else than named tensors, or holds NaN or infinite values; names the
            file, what was found and what was expected.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights file not found: {path}")
    if kind := foreign_kind(path):
        raise ValueError(f"{path} is {kind}; {_EXPECTED}")
    content = read_safetensors(path) if path.suffix == SUFFIX else _read(path)
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} is not a weights file: it holds {_description(content)}; {_EXPECTED}")
    state_dict = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ValueError(
                f"{path} is not a weights file: {key!r} is {_description(value)} ({len(content)} entries: "
                f"{', '.join(str(name) for name in list(content)[:5])}); {_EXPECTED}"
            )
        if not value.is_floating_point() or value.layout != torch.strided or value.is_quantized:
            raise ValueError(f"{path}: {key!r} holds {value.dtype} in layout {value.layout}; expected plain real numbers")
        state_dict[key] = value.float()
        if not torch.isfinite(state_dict[key]).all():
            raise ValueError(f"{path}: {key!r} holds NaN or infinite values")
    return state_dict


def load_network(path: str | Path, *, head_scale: float = 1.0) -> DenseNetwork:
    """The network that a weights file describes, single-task or fused, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError, ValueError: as `load_state_dict`, or the file's tensors are not a network's; names the file.
    """
    state_dict = load_state_dict(path)
    try:
        architecture = architecture_of(state_dict)
        # Without the time and the random numbers of an initialisation that the file replaces.
        with torch.device("meta"):
            net = build(architecture)
        net = net.to_empty(device="cpu")
        set_head_scale(net, head_scale)
        load_published(net, state_dict)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return net.to(memory_format=torch.channels_last).eval()


def save_network(net: DenseNetwork, path: str | Path) -> None:
    """Writes the published form of the weights; the file appears complete or not at all.

    Raises:
        OSError: the file cannot be written; names it.
    """
    save_tensors(path, published_state_dict(net))


def _read(path: Path) -> Any:
    """What torch.load makes of the file without running code from it."""
    if is_safetensors(path):
        raise ValueError(f"{path} is a safetensors file; its name must end in {SUFFIX}")
    try:
        damaged = damaged_entry(path)
        content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        if match := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(f"{path} holds a Python object ({match[1]}), whose code is not run; {_EXPECTED}") from error
        raise ValueError(f"{path} is not a weights file, or a damaged one; {_EXPECTED}") from error
    except Exception as error:  # damage shows itself in every kind of exception
        raise ValueError(f"{path} is damaged or incomplete ({first_line(error)}); {_EXPECTED}") from error
    if damaged:
        raise ValueError(f"{path} is damaged: the checksum of its entry {damaged!r} is wrong")
    return content


def _description(value: Any) -> str:
    if isinstance(value, (dict, list, tuple)):
        return f"a {type(value).__name__} of {len(value)} entries"
    return f"a {type(value).__name__}"
