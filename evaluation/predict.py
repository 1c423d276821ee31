"""Runs a network over a data set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataloader.batch import Batch
from dataloader.prepare import collate, prepare_for_evaluation
from dataloader.preprocessing import Preprocessing
from dataloader.section import Sample, SectionDataset
from geometry.grid import cell_centres
from localization.forward import BATCH_SIZE, Forward


@dataclass(frozen=True)
class Prediction:
    """A batch with what the network says of it.

    Attributes:
        batch: as the network saw it, on its device.
        images_BHW3: uint8 RGB images before normalisation, for pictures.
        prediction_BChw, sigma_B1hw: the network's output, float32; no uncertainty: None.
        stride: pixels per cell of the network's output; the labels have their own (`batch.stride`).
        network: which of several networks it is of, counted from 0.
    """

    batch: Batch
    images_BHW3: np.ndarray
    prediction_BChw: torch.Tensor
    sigma_B1hw: torch.Tensor | None
    stride: int
    network: int = 0

    def at_labels(self, values_BChw: torch.Tensor) -> torch.Tensor:
        """A map of the network's grid at the centres of the labels' cells, [B, C, h, w] of the labels."""
        if self.stride == self.batch.stride:
            return values_BChw
        h, w = self.batch.labels_BChw.shape[-2:]
        return sample_at_centres(values_BChw, h, w, self.batch.stride // self.stride)


def sample_at_centres(values_BCHW: torch.Tensor, h: int, w: int, stride: int) -> torch.Tensor:
    """A map sampled bilinearly at the centres of larger cells, [B, C, h, w].

    Args:
        stride: cells of the map per larger cell and axis.
    """
    B, _, H, W = values_BCHW.shape
    size_2 = values_BCHW.new_tensor([W, H])
    xy_hw2 = cell_centres(h, w, stride, device=values_BCHW.device).permute(1, 2, 0)
    grid_BHW2 = (2 * xy_hw2 / size_2 - 1).expand(B, h, w, 2)
    # The centres of the last cells may lie beyond the border.
    return F.grid_sample(values_BCHW, grid_BHW2, mode="bilinear", padding_mode="border", align_corners=False)


def predictions(
    net: nn.Module,
    dataset: SectionDataset,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    precision: str = "float32",
    num_workers: int = 0,
    title: str = "evaluate",
) -> Iterator[Prediction]:
    """Predictions of one network; see `predictions_of_many`."""
    return predictions_of_many(
        [net], dataset, preprocessing, device=device, precision=precision, num_workers=num_workers, title=title
    )


def predictions_of_many(
    nets: Sequence[nn.Module],
    dataset: SectionDataset,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    precision: str = "float32",
    num_workers: int = 0,
    title: str = "evaluate",
) -> Iterator[Prediction]:
    """Predictions batch by batch, in the order of the data set, each batch by all networks; with a progress bar.

    Photos are decoded and prepared once for all of them. Images of different sizes never share a batch: padding would change
    the statistics that the network normalises by.

    Args:
        nets: with an `architecture`, of one task and one size of predictions.
        precision: of the networks' arithmetic, see `autocast_for`.
    """
    forwards = [Forward(net, device, precision) for net in nets]
    task, stride = nets[0].architecture.task, forwards[0].stride
    loader = DataLoader(dataset, BATCH_SIZE, collate_fn=list, num_workers=num_workers)
    with ExitStack() as ends, tqdm(total=len(nets) * len(dataset), desc=title, unit="img", dynamic_ncols=True) as bar:
        for forward in forwards:
            ends.callback(forward.close)
        for samples in loader:
            for _, group in itertools.groupby(samples, key=_shapes):
                raw = collate(list(group))
                with torch.inference_mode():
                    batch = prepare_for_evaluation(raw.to(device), preprocessing, task, max(stride, raw.stride))
                for number, forward in enumerate(forwards):
                    prediction, sigma = forward(batch.images_B3HW)
                    yield Prediction(batch, raw.images_BHW3.numpy(), prediction, sigma, stride, number)
                    bar.update(len(batch.stems))


def _shapes(sample: Sample) -> tuple:
    return sample.view.image_HW3.shape, tuple(sample.label.map_Chw.shape), sample.label.stride
