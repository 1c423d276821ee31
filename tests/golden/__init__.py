"""Values computed by the published networks and losses; see README.md."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent
SHAPES: dict[str, dict[str, list[int]]] = json.loads((FOLDER / "state_dict_keys.json").read_text())
SEMANTICS_STEP = 3  # of the rows and columns that are kept of full-size outputs


def network_output(name: str) -> torch.Tensor:
    """What a network gives for `network_input`: [1, task + uncertainty channels, h, w]."""
    with np.load(FOLDER / "network_outputs.npz") as outputs:
        return torch.from_numpy(outputs[name])


def network_input(channels: int) -> torch.Tensor:
    return torch.rand((1, channels, 59, 93), generator=torch.Generator().manual_seed(7))


def network_weights(name: str) -> dict[str, torch.Tensor]:
    return {key: _tensor(key, tuple(shape)) for key, shape in SHAPES[name].items()}


def _tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    if key.endswith("mean"):
        return 10.0 * torch.arange(1, shape[0] + 1)
    random = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if len(shape) == 4:
        return random * math.sqrt(2 / math.prod(shape[1:]))
    return 1 + 0.1 * random if key.endswith(".weight") else 0.05 * random


def losses() -> dict[str, tuple[float, float]]:
    """(loss, valid rate) by `task_uncertainty`."""
    return {name: tuple(values) for name, values in json.loads((FOLDER / "losses.json").read_text()).items()}


def loss_inputs() -> dict[str, torch.Tensor]:
    with np.load(FOLDER / "loss_inputs.npz") as inputs:
        return {name: torch.from_numpy(inputs[name]) for name in inputs.files}
