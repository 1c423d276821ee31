"""The training of one network, from options to weights."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import torch
from torch.utils.data import DataLoader

from dataloader.augmentation import draw_augmentation
from dataloader.choice import is_real_section, training_sections
from dataloader.geometry_check import check_geometry
from dataloader.prepare import RawBatch, collate, prepare_for_training
from dataloader.preprocessing import DEFAULT_IMAGE_HEIGHT
from dataloader.sampler import RunBatchSampler
from dataloader.scenes import SceneStatistics
from dataloader.section import SectionDataset
from loss import LossOptions, loss_for
from networks import DenseNetwork, load_published, save_network
from networks.lanes import Lanes
from runs.device import autocast_for, choose_device
from runs.record import RunRecord
from tasks import TASKS
from threads import configure_threads
from training.identity import build_record
from training.log import LOG_NAMES, NotFinite, TrainingLog
from training.optimizer import build_optimizer
from training.options import TrainingOptions
from training.pictures import picture_grid
from training.run_folder import RunFolder, StartingPoint, choose_start, folder_of, write_records
from training.schedule import learning_rate
from training.starting_weights import build_network
from training.state import Position, load_state, restore, save_state

logger = logging.getLogger(__name__)

_LOG_EVERY_STEPS = 10
_STATE_EVERY_SECONDS = 60.0
# A run returns to its last good state this often when a loss is not finite; then it is an error.
_MOST_GOING_BACK = 3


class TrainingInterrupted(Exception):
    """Ctrl-C or SIGTERM arrived; the state was saved and the run can be resumed."""


def loss_options(options: TrainingOptions, statistics: SceneStatistics) -> LossOptions:
    """The thresholds in metres."""
    if not options.depth_relative:
        return options.loss
    unit = statistics.mean_depth
    return replace(options.loss, inittolerance=options.loss.inittolerance * unit, mindepth=options.loss.mindepth * unit)


def train(options: TrainingOptions) -> RunFolder:
    """Runs or resumes a training.

    Returns:
        The run's folders.
    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM; everything is saved.
        ValueError, OSError: bad data, flags or weights, another run in the folder; a message for the user.
        FloatingPointError: the loss is not finite again and again.
        RuntimeError: out of memory, a killed loader process; everything up to the last state is kept.
    """
    device = choose_device(options.device)
    sections = training_sections(
        options.scene_dir,
        sim_data_chunk=options.sim_data_chunk,
        real_data_chunk=options.real_data_chunk,
        real_only=options.real_only,
        real_data_domain=options.real_data_domain,
    )
    stride = TASKS[options.task].stride(options.fullsize)
    num_workers = options.num_workers
    if num_workers is None:
        num_workers = 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
    dataset = SectionDataset(sections, options.task, options.image_height or DEFAULT_IMAGE_HEIGHT, stride=stride)
    check_geometry(dataset)
    run = folder_of(options)
    record = build_record(options, sections, dataset, run.record())
    run, start = choose_start(options, run, record)
    if run.done:
        logger.info("training is already done: %s", run.checkpoints)
        return run
    dataset = SectionDataset(
        sections, options.task, record.preprocessing.image_height, stride=stride, cache=num_workers == 0
    )
    net = build_network(options, record).to(device, memory_format=torch.channels_last)
    with run.held():
        _Trainer(options, run, record, net, dataset, device, num_workers).run_from(start)
    return run


class _Trainer:
    """One process's part of a run: owns the raw network; what runs it on several cores is `self.lanes`."""

    def __init__(
        self,
        options: TrainingOptions,
        run: RunFolder,
        record: RunRecord,
        net: DenseNetwork,
        dataset: SectionDataset,
        device: torch.device,
        num_workers: int,
    ):
        self.options, self.run, self.record, self.dataset = options, run, record, dataset
        self.net = net
        self.device, self.num_workers = device, num_workers
        self.loss, self.loss_options = loss_for(options.task), loss_options(options, record.statistics)
        self.optimizer = build_optimizer(options.optimizer, net, options.learningrate)
        self.position = Position()
        self.images_in_epoch = len(dataset)
        self.total_images = options.epochs * len(dataset)
        self.weights_move = False  # inside an update
        self.last_step: tuple[int, tuple[str, ...]] = (0, ())

    def run_from(self, start: StartingPoint) -> None:
        """Trains to the end, going back to the last good state when a loss is not finite."""
        cores = configure_threads() if self.device.type == "cpu" else 1
        # Into how many parts a batch is split decides the last bits: a property of the run, wherever it goes on.
        self.parts = min(cores, self.options.batch_size) if start.state is None else start.state["parts"]
        self.lanes = Lanes(self.net, parts=self.parts, lanes=cores)
        if start.state is not None:
            self.position = restore(start.state, self.net, self.optimizer)
        elif start.weights is not None:
            load_published(self.net, start.weights)
            self.position = Position(start.images_seen)
        # The state is the first file of a run: whatever stops it from now on, it goes on from here.
        self._save_state(log=None)
        if start.logs_from is not None:
            for name in LOG_NAMES:
                if (start.logs_from / name).is_file():
                    shutil.copy(start.logs_from / name, self.run.output / name)
        write_records(self.run, self.record)
        self.net.train()
        with interrupt_flag() as interrupted, closing(self.lanes):
            while True:
                log = TrainingLog(
                    self.run.output, self.options.task, self.total_images, self.position.images_seen, self.position.log_bytes
                )
                try:
                    self._introduce(log)
                    self._steps(log, interrupted)
                    log.message("Done without errors.")
                    break
                except NotFinite as failure:
                    self._go_back(failure)
                except (ValueError, OSError, RuntimeError):
                    self._save_after_failure(log)
                    raise
                finally:
                    log.close()
        self.run.mark_done()

    def _introduce(self, log: TrainingLog) -> None:
        fresh = self.position.images_seen == 0
        title = (
            "***** A new training has been started *****" if fresh else f"Resumed after {self.position.images_seen} images"
        )
        parameters = sum(p.numel() for p in self.net.parameters())
        lines = [
            title,
            f"Software: {dict(self.record.software)}",
            f"Output: {self.run.output}",
            f"Checkpoints: {self.run.checkpoints}",
            *(f"{k}: {v}" for k, v in self.record.options.items()),
            f"Parameters: {parameters}",
            f"Images per epoch: {self.images_in_epoch}",
        ]
        log.message("\n".join(lines))

    def _steps(self, log: TrainingLog, interrupted: threading.Event) -> None:
        loader = DataLoader(
            self.dataset,
            batch_sampler=self._sampler(),
            collate_fn=collate,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_interrupts,
        )
        announced = -1
        for raw in loader:
            before = self.position.images_seen
            epoch = before // self.images_in_epoch
            if epoch != announced:
                log.flush()
                log.message(f"=== Epoch: {epoch} ===")
                announced = epoch
            if before not in self.position.passed_over:
                self._step(raw, epoch, log)
            self.position = replace(self.position, images_seen=before + len(raw.stems))
            epoch_ends = self.position.images_seen % self.images_in_epoch == 0
            if log.steps_waiting >= (1 if self.options.debug else _LOG_EVERY_STEPS) or epoch_ends:
                log.flush()
            if before == 0:
                self.run.save_checkpoint(self.net, self.position.images_seen)
                self._save_state(log)
            if epoch_ends:
                self._epoch_done(log)
            if time.monotonic() - self.state_saved_at > _STATE_EVERY_SECONDS:
                self._save_state(log)
            if interrupted.is_set():
                self._save_state(log)
                raise TrainingInterrupted(
                    f"interrupted after {self.position.images_seen} images; continue with --auto_resume"
                )

    def _sampler(self) -> RunBatchSampler:
        options = self.options
        return RunBatchSampler(
            [is_real_section(s) for s in self.dataset.section_of],
            options.batch_size,
            seed=options.seed,
            epochs=options.epochs,
            start_images=self.position.images_seen,
            real_share=options.real_share,
        )

    def _step(self, raw: RawBatch, epoch: int, log: TrainingLog) -> None:
        """One optimizer step; its figures stay on the device until the log asks for them."""
        started = time.perf_counter()
        options, before = self.options, self.position.images_seen
        draws = draw_augmentation(
            options.augmentation, seed=options.seed, epoch=epoch, images_seen=before, indices=raw.indices
        )
        rate = learning_rate(options.lr_schedule, options.learningrate, before / self.images_in_epoch, options.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            batch = prepare_for_training(
                raw.to(self.device),
                self.record.preprocessing,
                options.task,
                options.augmentation,
                draws,
                self.dataset.stride,
            )
        with autocast_for(self.device, options.precision):
            prediction, sigma = self.lanes(batch.images_B3HW)
        result = self.loss(prediction, sigma, batch, self.loss_options)
        # On a CPU looking costs nothing; on a GPU it would wait, so there the log looks, before any state is saved.
        if self.device.type == "cpu" and not torch.isfinite(result.total):
            raise NotFinite(before, raw.stems)
        if log.wants_picture(epoch):
            grid_3HW = picture_grid(options.task, batch, self.record.preprocessing, prediction, sigma)
            log.picture(grid_3HW, epoch=epoch, images_seen=before + len(raw.stems))
        self.optimizer.zero_grad(set_to_none=True)
        result.total.backward()
        self.lanes.backward()
        self.weights_move = True
        self.optimizer.step()
        self.weights_move, self.last_step = False, (before, raw.stems)
        log.step_done(
            result,
            images_before=before,
            stems=raw.stems,
            epoch=epoch,
            learning_rate=rate,
            seconds=time.perf_counter() - started,
        )

    def _epoch_done(self, log: TrainingLog) -> None:
        self._check_weights()
        epochs_done = self.position.images_seen // self.images_in_epoch
        save_network(self.net, self.run.latest)
        last = epochs_done == self.options.epochs
        # The last one too, whatever the number of epochs: selection looks at numbered checkpoints.
        if last or epochs_done % TASKS[self.options.task].checkpoint_every_epochs == 0:
            self.run.save_checkpoint(self.net, self.position.images_seen)
            log.message(f"Saved a checkpoint after {self.position.images_seen} images")
            self._save_state(log)

    def _save_state(self, log: TrainingLog | None) -> None:
        """Saves the state, after making sure that it is a good one."""
        if log is not None:
            log.flush()
            self._check_weights()
            self.position = replace(self.position, log_bytes=log.sizes())
        save_state(self.run.state, self.record, self.net, self.optimizer, self.position, parts=self.parts)
        self.state_saved_at = time.monotonic()

    def _save_after_failure(self, log: TrainingLog) -> None:
        """Saves what can be saved; what stopped the run is the message, not this."""
        if self.weights_move:
            return  # an update that was made in part is no state
        try:
            self._save_state(log)
        except (NotFinite, OSError, RuntimeError) as error:
            logger.debug("the state could not be saved either: %s", error)

    def _weights_are_finite(self) -> bool:
        return all(bool(torch.isfinite(p).all()) for p in self.net.parameters())

    def _check_weights(self) -> None:
        """A finite loss may still have had gradients that were not."""
        if not self._weights_are_finite():
            raise NotFinite(*self.last_step)

    def _go_back(self, failure: NotFinite) -> None:
        """Returns to the last good state; the step that failed will be passed over.

        Raises:
            FloatingPointError: it has happened too often.
        """
        failures = self.position.failures + 1
        if failures > _MOST_GOING_BACK:
            raise FloatingPointError(
                f"{failure}; the run went back {_MOST_GOING_BACK} times already. Lower --learningrate, or look at these "
                f"images. The last good state is kept in {self.run.state}"
            )
        # Weights that are not finite either were spoilt by the step before, whose loss still was.
        steps = {failure.images_seen} if self._weights_are_finite() else {failure.images_seen, self.last_step[0]}
        passed_over = tuple(sorted({*self.position.passed_over, *steps}))
        self.position = replace(
            restore(load_state(self.run.state), self.net, self.optimizer), passed_over=passed_over, failures=failures
        )
        logger.warning("%s; back to the state after %d images, passing these over", failure, self.position.images_seen)


def ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches the whole process group; the loop stops the loaders when it has saved its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def interrupt_flag() -> Iterator[threading.Event]:
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
