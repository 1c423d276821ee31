"""The training loop of one single-task network."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import torch
from torch.utils.data import DataLoader

from dataloader.choice import is_real_section, training_sections
from dataloader.prepare import collate, prepare_for_training
from dataloader.preprocessing import (
    DEFAULT_IMAGE_HEIGHT, Preprocessing, preprocessing_from_record, preprocessing_to_record, record_of, write_record,
)
from dataloader.sampler import RunBatchSampler, step_generator
from dataloader.scenes import GREY_MEAN, GREY_STD, SceneStatistics, scene_statistics
from dataloader.section import SectionDataset
from loss import loss_for
from networks import Architecture, TransPoseNet, load_state_dict, save_network
from networks.architecture import architecture_of
from tasks import TASKS
from training.device import autocast_for, choose_device
from training.log import TrainingLog
from training.names import run_name
from training.optimizer import build_optimizer
from training.options import TrainingOptions
from training.run_folder import RunFolder, StartingPoint, open_run, restore, save_state
from training.schedule import learning_rate

logger = logging.getLogger(__name__)

_LOG_EVERY_STEPS = 10
# Runs on few images have epochs of seconds; their exact state is not worth writing more often than this.
_STATE_EVERY_SECONDS = 60.0


class TrainingInterrupted(Exception):
    """Ctrl-C or SIGTERM arrived; the state was saved and the run can be resumed."""


@dataclass
class _Position:
    """Where the run stands: always between two optimizer steps."""

    images_seen: int = 0
    epoch: int = 0
    batch: int = 0


def initial_mean(task: str, statistics: SceneStatistics) -> torch.Tensor:
    """What the decoder adds to its output: the scene's mean label in the network's output units."""
    if task == "coord":
        return torch.tensor(statistics.mean_coord)
    if task == "depth":
        return torch.tensor([statistics.mean_depth])
    if task == "normal":
        share_2 = (torch.tensor(statistics.mean_normal) / torch.pi + 1) / 2
        return torch.log(share_2 / (1 - share_2 + 1e-7))
    return torch.zeros(TASKS[task].channels)


def head_spread(task: str, statistics: SceneStatistics) -> float:
    """Units in which the last layer trains: the spread of the labels."""
    return {"coord": statistics.coord_spread, "depth": statistics.depth_spread}.get(task, 1.0)


def build_network(options: TrainingOptions, statistics: SceneStatistics) -> TransPoseNet:
    """A fresh network, or the one of --network_in; ValueError when a flag contradicts the weights."""
    wanted = Architecture.for_task(
        options.task, uncertainty=options.uncertainty, tiny=options.tiny, fullsize=options.fullsize,
        in_channels=1 if options.grayscale else 3,
    )
    net = TransPoseNet(wanted, initial_mean(options.task, statistics))
    net.init_head(head_spread(options.task, statistics))
    if options.network_in is not None:
        state_dict = load_state_dict(options.network_in)
        try:
            found = architecture_of(state_dict)
            if found != wanted:
                raise ValueError(f"the weights are of {found}, but the flags ask for {wanted}")
            net.load_published(state_dict)
        except ValueError as error:
            raise ValueError(f"{options.network_in}: {error}") from None
    return net


def choose_preprocessing(options: TrainingOptions, statistics: SceneStatistics) -> Preprocessing:
    """Image size and normalisation: as the starting weights were trained, else the flags and the scene's colours."""
    record = record_of(options.network_in) if options.network_in is not None else None
    inherited = preprocessing_from_record(record["preprocessing"]) if record else None
    height = options.image_height or (inherited.image_height if inherited else DEFAULT_IMAGE_HEIGHT)
    if inherited is not None and inherited.grayscale == options.grayscale:
        return Preprocessing(height, options.grayscale, inherited.rgb_mean, inherited.rgb_std)
    if options.grayscale:
        return Preprocessing(height, True, GREY_MEAN, GREY_STD)
    return Preprocessing(height, False, statistics.rgb_mean, statistics.rgb_std)


def train(options: TrainingOptions) -> RunFolder:
    """Runs or resumes a training.

    Returns:
        The run's folders; its checkpoints folder holds the weights.
    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM; everything is saved.
        ValueError, OSError: bad data, flags or weights; a message for the user.
        FloatingPointError: the loss is no longer finite.
    """
    device = choose_device(options.device)
    autocast_for(device, options.precision)  # refuses an unknown precision before any folder is made
    torch.manual_seed(options.seed)
    sections = training_sections(
        options.scene_dir, sim_data_chunk=options.sim_data_chunk, real_data_chunk=options.real_data_chunk,
        real_only=options.real_only, real_data_domain=options.real_data_domain,
    )
    num_workers = options.num_workers
    if num_workers is None:
        num_workers = 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
    SectionDataset(sections, options.task, options.image_height or DEFAULT_IMAGE_HEIGHT)  # names what is missing
    statistics = scene_statistics(options.scene, options.scene_dir, sections)
    preprocessing = choose_preprocessing(options, statistics)
    if options.depth_relative:
        options = replace(options, loss=replace(
            options.loss, inittolerance=options.loss.inittolerance * statistics.mean_depth,
            mindepth=options.loss.mindepth * statistics.mean_depth,
        ))
    dataset = SectionDataset(sections, options.task, preprocessing.image_height, cache=num_workers == 0)
    net = build_network(options, statistics).to(device, memory_format=torch.channels_last)

    run, start = open_run(options)
    if run.done:
        logger.info("training is already done: %s", run.checkpoints)
        return run
    for folder in {run.output, run.checkpoints}:
        write_record(folder, _record(options, preprocessing, statistics, sections))
    _Trainer(options, run, net, dataset, preprocessing, device, num_workers).run_from(start)
    return run


def _record(options: TrainingOptions, preprocessing: Preprocessing, statistics: SceneStatistics, sections) -> dict:
    """What the weights were made from: read by evaluation, fine-tuning and checkpoint selection."""
    parent = record_of(options.network_in) if options.network_in is not None else None
    return {
        "name": run_name(options), "scene": options.scene, "task": options.task, "uncertainty": options.uncertainty,
        # The synthetic chunk that the network has seen, be it before this run.
        "sim_chunk": parent["sim_chunk"] if parent else options.sim_data_chunk,
        "real_chunk": options.real_data_chunk, "real_domain": options.real_data_domain,
        "preprocessing": preprocessing_to_record(preprocessing), "statistics": asdict(statistics),
        "sections": [section.name for section in sections], "epochs": options.epochs, "batch_size": options.batch_size,
        "optimizer": options.optimizer, "learningrate": options.learningrate, "lr_schedule": options.lr_schedule,
        "seed": options.seed, "loss": asdict(options.loss), "augmentation": asdict(options.augmentation),
    }


class _Trainer:
    def __init__(self, options, run: RunFolder, net: TransPoseNet, dataset: SectionDataset, preprocessing, device, num_workers):
        self.options, self.run, self.net, self.dataset = options, run, net, dataset
        self.preprocessing, self.device, self.num_workers = preprocessing, device, num_workers
        self.loss = loss_for(options.task)
        self.optimizer = build_optimizer(options.optimizer, net, options.learningrate)
        self.position = _Position()
        self.state_saved_at = time.monotonic()

    def run_from(self, start: StartingPoint) -> None:
        if start.state is not None:
            restore(start.state, self.net, self.optimizer)
            self.position = _Position(start.state["images_seen"], start.state["epoch"], start.state["batch"])
        elif start.weights is not None:
            self.net.load_published(start.weights)
            epoch = start.images_seen // len(self.dataset)
            self.position = _Position(epoch * len(self.dataset), epoch)
        sampler = RunBatchSampler(
            [is_real_section(s) for s in self.dataset.section_of], self.options.batch_size, seed=self.options.seed,
            epochs=self.options.epochs, start_epoch=self.position.epoch, start_batch=self.position.batch,
            real_share=self.options.real_share,
        )
        loader = DataLoader(
            self.dataset, batch_sampler=sampler, collate_fn=collate, num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
        )
        log = TrainingLog(
            self.run.output, self.options.task, self.options.uncertainty,
            self.options.epochs * len(self.dataset), self.position.images_seen,
        )
        self.net.train()
        try:
            with _interrupt_flag() as interrupted:
                self._steps(loader, sampler, log, interrupted)
        except (ValueError, OSError, RuntimeError):
            self._save_state()
            raise
        finally:
            log.close()
        self.run.mark_done()

    def _steps(self, loader: DataLoader, sampler: RunBatchSampler, log: TrainingLog, interrupted: threading.Event) -> None:
        position, batches_per_epoch = self.position, sampler.batches_per_epoch
        for step, raw in enumerate(loader):
            result, rate = self._step(raw)
            position.images_seen += len(raw.stems)
            position.batch += 1
            log.step_done(len(raw.stems))
            if step % _LOG_EVERY_STEPS == 0 or self.options.debug or position.batch == batches_per_epoch:
                log.record(result, images_seen=position.images_seen, epoch=position.epoch, learning_rate=rate)
                if not torch.isfinite(result.total):
                    raise FloatingPointError(
                        f"the loss is no longer finite after {position.images_seen} images; lower --learningrate. "
                        f"The last good weights are in {self.run.checkpoints}"
                    )
            if position.images_seen == len(raw.stems):
                self.run.save_checkpoint(self.net, position.images_seen)
            if position.batch == batches_per_epoch:
                position.epoch, position.batch = position.epoch + 1, 0
                self._epoch_done()
            if interrupted.is_set():
                self._save_state()
                raise TrainingInterrupted(f"interrupted after {position.images_seen} images; continue with --auto_resume")

    def _step(self, raw) -> tuple:
        options, position = self.options, self.position
        raw = raw.to(self.device)
        generator = step_generator(options.seed, position.images_seen)
        with torch.no_grad():
            batch = prepare_for_training(raw, self.preprocessing, options.task, options.augmentation, generator)
        epoch = position.images_seen / len(self.dataset)
        rate = learning_rate(options.lr_schedule, options.learningrate, epoch, options.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with autocast_for(self.device, options.precision):
            prediction, sigma = self.net(batch.images_B3HW)
        result = self.loss(prediction, sigma, batch, options.loss)
        self.optimizer.zero_grad(set_to_none=True)
        result.total.backward()
        self.optimizer.step()
        return result, rate

    def _epoch_done(self) -> None:
        save_network(self.net, self.run.latest)
        last = self.position.epoch == self.options.epochs
        # The last one too, whatever the number of epochs: selection looks at numbered checkpoints.
        if last or self.position.epoch % TASKS[self.options.task].checkpoint_every_epochs == 0:
            self.run.save_checkpoint(self.net, self.position.images_seen)
        if last or time.monotonic() - self.state_saved_at > _STATE_EVERY_SECONDS:
            self._save_state()

    def _save_state(self) -> None:
        position = self.position
        save_state(
            self.run.state, self.net, self.optimizer,
            images_seen=position.images_seen, epoch=position.epoch, batch=position.batch,
        )
        self.state_saved_at = time.monotonic()


@contextmanager
def _interrupt_flag() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a run stops between two steps; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(signum, frame):
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
