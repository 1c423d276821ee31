"""A network's pass over batches of photos: the one that evaluation and localisation share."""

from __future__ import annotations

import torch
from torch import nn

from geometry.grid import FULL_SIZE_STRIDE, STRIDE
from networks.lanes import Lanes
from runs.device import autocast_for, resolved_precision
from runs.record import RunRecord
from threads import configure_threads

BATCH_SIZE = 4
# What another system's weights were trained in.
PRECISION_WITHOUT_RECORD = "float32"


def precision_for(record: RunRecord | None, device: torch.device, asked: str | None = None) -> str:
    """The arithmetic of a network's pass: as asked, else as in training; bf16 or float32.

    Raises:
        ValueError: the device does not know it.
    """
    trained_in = PRECISION_WITHOUT_RECORD if record is None else record.options.get("precision", PRECISION_WITHOUT_RECORD)
    return resolved_precision(device, asked or trained_in)


class Forward:
    """A network ready to predict. `close` ends its threads.

    Attributes:
        stride: pixels per cell of what it predicts.
    """

    def __init__(self, net: nn.Module, device: torch.device, precision: str = "float32"):
        """
        Args:
            net: with an `architecture`.
            precision: of the network's arithmetic, see `autocast_for`.
        """
        self.stride = FULL_SIZE_STRIDE if net.architecture.fullsize else STRIDE
        self._device, self._precision = device, precision
        # A part an image: what an image gives does not depend on the number of cores, nor on its neighbours.
        on_cpu = device.type == "cpu"
        self._lanes = Lanes(
            net.to(device).eval(), parts=BATCH_SIZE if on_cpu else 1, lanes=configure_threads() if on_cpu else 1
        )

    def __call__(self, images_B3HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(prediction_BChw, sigma_B1hw) float32 of normalised images on the device; no uncertainty: None.

        Images of different sizes must not share a batch: padding would change the statistics that the network normalises by.
        """
        with torch.inference_mode(), autocast_for(self._device, self._precision):
            prediction, sigma = self._lanes(images_B3HW)
        return prediction.float(), None if sigma is None else sigma.float()

    def close(self) -> None:
        self._lanes.close()
