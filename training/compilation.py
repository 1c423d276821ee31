"""`--compile`: the network through torch.compile, or as it is where that cannot be had."""

from __future__ import annotations

import logging

import torch

from networks import DenseNetwork
from runs.device import autocast_for
from runs.messages import explained

logger = logging.getLogger(__name__)
# Height and width of the image that the network is tried on.
_TRIAL_PX = (64, 96)


def compiled(net: DenseNetwork, device: torch.device, precision: str) -> torch.nn.Module:
    """The compiled network, which shares the weights, for images of any size; the network itself, with one line that says
    why, where there is no compiler or it fails.

    Whether it works shows only when it runs: a forward and a backward pass of a small image, whose gradients are dropped.
    """
    quick = torch.compile(net, dynamic=True)
    # Not a round number of images: a one would be compiled as a constant.
    images_B3HW = torch.zeros(2, net.architecture.in_channels, *_TRIAL_PX, device=device)
    try:
        with autocast_for(device, precision):
            prediction, _ = quick(images_B3HW)
        prediction.sum().backward()
    except Exception as error:  # of the compiler, of Triton, of a missing header: anything but a reason to stop
        reason = explained(error, memory="", loader="")
        logger.warning("--compile: the network runs without it, nothing else changes (%s)", reason)
        return net
    finally:
        net.zero_grad(set_to_none=True)
    return quick
