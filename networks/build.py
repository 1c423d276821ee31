"""The family of networks: an architecture to its network."""

from __future__ import annotations

import torch

from networks.architecture import Architecture
from networks.fused import FusedTransPoseNet
from networks.transposenet import DenseNetwork, TransPoseNet


def build(architecture: Architecture, mean: torch.Tensor | None = None) -> DenseNetwork:
    """A fresh network.

    Args:
        architecture: with `num_encoders` a fused network, without a single-task one.
        mean: what the decoder adds to its output, one value per task channel (default: zeros).
    """
    return (FusedTransPoseNet if architecture.num_encoders else TransPoseNet)(architecture, mean)


def state_shapes(architecture: Architecture) -> dict[str, torch.Size]:
    """Names and shapes of the weights, without the network's memory."""
    with torch.device("meta"):
        return {key: value.shape for key, value in build(architecture).state_dict().items()}
