"""Runs a network over a data set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataloader.batch import Batch
from dataloader.prepare import collate, prepare_for_evaluation
from dataloader.preprocessing import Preprocessing
from dataloader.section import Sample, SectionDataset
from networks import TransPoseNet

_BATCH_SIZE = 4


@dataclass(frozen=True)
class Prediction:
    """A batch with what the network says of it.

    Attributes:
        batch: as the network saw it, on its device.
        images_BHW3: uint8 RGB images before normalisation, for pictures.
        prediction_BChw, sigma_B1hw: the network's output; no uncertainty: None.
    """

    batch: Batch
    images_BHW3: np.ndarray
    prediction_BChw: torch.Tensor
    sigma_B1hw: torch.Tensor | None


def predictions(
    net: TransPoseNet,
    dataset: SectionDataset,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    num_workers: int = 0,
    title: str = "evaluate",
) -> Iterator[Prediction]:
    """Predictions in the order of the data set, float32, with a progress bar.

    Images of different sizes never share a batch: padding would change the statistics that the network normalises by.
    """
    net = net.to(device).eval()
    task = net.architecture.task
    loader = DataLoader(dataset, _BATCH_SIZE, collate_fn=list, num_workers=num_workers)
    with tqdm(total=len(dataset), desc=title, unit="img", dynamic_ncols=True) as bar:
        for samples in loader:
            for _, group in itertools.groupby(samples, key=_shapes):
                raw = collate(list(group))
                with torch.inference_mode():
                    batch = prepare_for_evaluation(raw.to(device), preprocessing, task)
                    prediction, sigma = net(batch.images_B3HW)
                yield Prediction(batch, raw.images_BHW3.numpy(), prediction, sigma)
                bar.update(len(batch.stems))


def _shapes(sample: Sample) -> tuple:
    return sample.image_HW3.shape, tuple(sample.label.shape)
