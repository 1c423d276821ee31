"""Parts of trained single-task networks for a fused one, and keeping them as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from networks.architecture import Architecture, architecture_of, check_entries
from networks.build import state_shapes
from networks.encoder import Encoder
from networks.head import head_scale_of, with_scaled_head
from networks.transposenet import DenseNetwork


def init_decoder_from(net: DenseNetwork, coord_state_dict: Mapping[str, torch.Tensor]) -> None:
    """Takes decoder and mean from the published weights of a single-task network, keeping the head scale of `net`.

    Raises:
        ValueError: they are not the weights of a single-task network, or its decoder is not like the one of `net`.
    """
    found = _single_task_architecture(coord_state_dict)
    fields = ("task", "uncertainty", "tiny", "fullsize", "in_channels")
    if contradiction := found.contradiction(net.architecture, *fields):
        raise ValueError(f"the decoder does not fit: the weights have {contradiction}")
    scaled = with_scaled_head(coord_state_dict, found.task_channels, 1.0 / head_scale_of(net))
    net.decoder.load_state_dict(_below("decoder.", scaled))
    net.mean.copy_(net.decoder.mean)


def load_encoder(net: DenseNetwork, index: int, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Takes encoder `index` (from 1) from the published weights of a single-task network, of whatever task.

    Raises:
        ValueError: no such encoder, not the weights of a single-task network, or an encoder of another size.
    """
    encoder = _encoder(net, index)
    if contradiction := _single_task_architecture(state_dict).contradiction(net.architecture, "tiny", "in_channels"):
        raise ValueError(f"encoder {index} does not fit: the weights have {contradiction}")
    encoder.load_state_dict(_below("encoder.", state_dict))


def freeze_encoders(net: DenseNetwork, indices: Iterable[int]) -> None:
    """Lets the encoders with these numbers (from 1) take no gradients, and all others take them."""
    frozen = [_encoder(net, index) for index in indices]
    for encoder in net.encoders:
        encoder.requires_grad_(encoder not in frozen)


def _encoder(net: DenseNetwork, index: int) -> Encoder:
    if not 1 <= index <= len(net.encoders):
        raise ValueError(f"the network has encoders 1 to {len(net.encoders)}, not {index}")
    return net.encoders[index - 1]


def _single_task_architecture(state_dict: Mapping[str, torch.Tensor]) -> Architecture:
    found = architecture_of(state_dict)
    if found.num_encoders:
        raise ValueError(f"the weights are of a fused network of {found.num_encoders} encoders; expected a single-task one")
    check_entries(state_dict, state_shapes(found))
    return found


def _below(prefix: str, state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
