"""The units of the last layer, and the weights as files hold them: functions over any network with a `.decoder`.

Files hold a head in the task's own units. During training the task rows of fc3 work in units of the scene's size, so
that their weights are of the size of all others: prediction = head_scale * fc3(x) + mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from networks.architecture import architecture_of, check_entries
from networks.transposenet import DenseNetwork

_HEAD = ("decoder.fc3.weight", "decoder.fc3.bias")


def head_scale_of(net: DenseNetwork) -> float:
    """Units of fc3's task rows. Not part of the state dict."""
    return net.decoder.head_scale


def set_head_scale(net: DenseNetwork, scale: float) -> None:
    """Declares the units of fc3's task rows without touching these; ValueError unless positive."""
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"the head scale must be a positive number, got {scale}")
    net.decoder.head_scale = float(scale)


@torch.no_grad()
def init_head(net: DenseNetwork, spread: float) -> None:
    """Lets a fresh head start at the scene's size: task rows in units of `spread`, uncertainty around it.

    Args:
        spread: typical distance of the labels from `mean`, in the task's unit.
    """
    set_head_scale(net, spread)
    if net.architecture.uncertainty == "mle":
        net.decoder.fc3.bias[-1] = math.log(spread)


def published_state_dict(net: DenseNetwork) -> dict[str, torch.Tensor]:
    """Weights as files hold them, on the CPU: the head scale is folded into fc3's task rows."""
    state_dict = {
        key: value.detach().to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)
        for key, value in net.state_dict().items()
    }
    return with_scaled_head(state_dict, net.architecture.task_channels, head_scale_of(net))


def load_published(net: DenseNetwork, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Loads weights as files hold them, keeping this network's head scale.

    Raises:
        ValueError: the weights belong to another architecture; names what differs.
    """
    if contradiction := architecture_of(state_dict).contradiction(net.architecture):
        raise ValueError(f"the weights are of another network: {contradiction}")
    check_entries(state_dict, {key: value.shape for key, value in net.state_dict().items()})
    net.load_state_dict(with_scaled_head(state_dict, net.architecture.task_channels, 1.0 / head_scale_of(net)))


def with_scaled_head(state_dict: Mapping[str, torch.Tensor], task_channels: int, scale: float) -> dict[str, torch.Tensor]:
    """The same weights with fc3's task rows multiplied by `scale`."""
    scaled = dict(state_dict)
    for key in _HEAD:
        scaled[key] = scaled[key].clone()
        scaled[key][:task_channels] *= scale
    return scaled
