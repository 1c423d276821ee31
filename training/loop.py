"""The training of one network, from options to weights."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace

import torch
from torch.utils.data import DataLoader

from dataloader.augmentation import draw_augmentation
from dataloader.choice import is_real_section, training_sections
from dataloader.geometry_check import check_geometry
from dataloader.prepare import RawBatch, collate, prepare_for_training
from dataloader.preprocessing import DEFAULT_IMAGE_HEIGHT
from dataloader.sampler import RunBatchSampler
from dataloader.section import SectionDataset
from networks import DenseNetwork, load_published, save_network
from networks.lanes import Lanes
from runs.device import autocast_for
from runs.record import RunRecord
from tasks import TASKS
from threads import configure_threads
from training.compilation import compiled
from training.going_back import NotFinite, after_failure
from training.identity import build_record
from training.log import LOG_NAMES, StepFigures, TrainingLog
from training.objective import objective
from training.optimizer import build_optimizer
from training.options import TrainingOptions
from training.pictures import picture_grid
from training.ranks import Ranks, processes_of_the_run
from training.run_folder import RunFolder, StartingPoint, choose_start, folder_of, write_records
from training.schedule import image_scale, learning_rate
from training.starting_weights import build_network
from training.state import Position, load_state, restore, save_state

logger = logging.getLogger(__name__)

_LOG_EVERY_STEPS = 10
_STATE_EVERY_SECONDS = 60.0


class TrainingInterrupted(Exception):
    """Ctrl-C or SIGTERM arrived; the state was saved and the run can be resumed."""


def train(options: TrainingOptions) -> RunFolder:
    """Runs or resumes a training; one of several processes when `torchrun` started this one.

    Returns:
        The run's folders.
    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM, in any process; everything is saved.
        PeerStopped: another process stopped first, and says why.
        ValueError, OSError: bad data, flags or weights, another run in the folder; a message for the user.
        FloatingPointError: the loss is not finite again and again.
        RuntimeError: out of memory, a killed loader process; everything up to the last state is kept.
    """
    with processes_of_the_run(options.device) as ranks:
        return _train(options, ranks)


def _train(options: TrainingOptions, ranks: Ranks) -> RunFolder:
    sections = training_sections(
        options.scene_dir,
        sim_data_chunk=options.sim_data_chunk,
        real_data_chunk=options.real_data_chunk,
        real_only=options.real_only,
        real_data_domain=options.real_data_domain,
    )
    stride = TASKS[options.task].stride(options.fullsize)
    if options.batch_size < ranks.count:
        raise ValueError(
            f"--batch_size {options.batch_size} is of all {ranks.count} processes together: at least one image each"
        )
    num_workers = options.num_workers
    if num_workers is None:
        num_workers = 0 if ranks.device.type == "cpu" else min(8, max(1, (os.cpu_count() or 1) // ranks.local_count))

    def checked_start() -> tuple[RunFolder, StartingPoint, RunRecord]:
        dataset = SectionDataset(sections, options.task, options.image_height or DEFAULT_IMAGE_HEIGHT, stride=stride)
        check_geometry(dataset)
        run = folder_of(options)
        record = build_record(options, sections, dataset, run.record())
        return *choose_start(options, run, record), record

    run, start, record = ranks.first_decides(checked_start)
    if run.done:
        logger.info("training is already done: %s", run.checkpoints)
        return run
    dataset = SectionDataset(
        sections,
        options.task,
        record.preprocessing.image_height,
        stride=stride,
        cache_bytes=int(options.cache_gb * 2**30) // ranks.local_count,
    )
    if len(dataset) != record.images_per_epoch:
        raise ValueError(
            f"process {ranks.number} finds {len(dataset)} samples in {options.scene_dir}, the first process found "
            f"{record.images_per_epoch}: every machine needs the same data set"
        )
    net = build_network(options, record).to(ranks.device, memory_format=torch.channels_last)
    with run.held() if ranks.first else nullcontext():
        _Trainer(options, run, record, net, dataset, ranks, num_workers).run_from(start)
    return run


class _Trainer:
    """One process's part of a run: owns the raw network; what runs it on several cores or processes is `self.lanes`."""

    def __init__(
        self,
        options: TrainingOptions,
        run: RunFolder,
        record: RunRecord,
        net: DenseNetwork,
        dataset: SectionDataset,
        ranks: Ranks,
        num_workers: int,
    ):
        self.options, self.run, self.record, self.dataset = options, run, record, dataset
        self.net = net
        self.ranks, self.device, self.num_workers = ranks, ranks.device, num_workers
        self.objective = objective(options, record.statistics)
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
        if start.state is not None:
            self.position = restore(start.state, self.net, self.optimizer)
        elif start.weights is not None:
            load_published(self.net, start.weights)
            self.position = Position(start.images_seen)
        whole_batch = self.ranks.count == 1 and self.device.type == "cpu"
        running = compiled(self.net, self.device, self.options.precision) if self.options.compile else self.net
        self.lanes = Lanes(self.ranks.parallel(running), parts=self.parts if whole_batch else 1, lanes=cores)
        # The state is the first file of a run: whatever stops it from now on, it goes on from here.
        self._save_state(log=None)
        if self.ranks.first:
            if start.logs_from is not None:
                for name in LOG_NAMES:
                    if (start.logs_from / name).is_file():
                        shutil.copy(start.logs_from / name, self.run.output / name)
            write_records(self.run, self.record)
        self.net.train()
        with interrupt_flag(self.ranks.count == 1) as interrupted, closing(self.lanes):
            while True:
                log = self._open_log()
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
        if self.ranks.first:
            self.run.mark_done()

    def _open_log(self) -> StepFigures:
        if not self.ranks.first:
            return StepFigures()
        return TrainingLog(
            self.run.output, self.options.task, self.total_images, self.position.images_seen, self.position.log_bytes
        )

    def _introduce(self, log: StepFigures) -> None:
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

    def _steps(self, log: StepFigures, interrupted: threading.Event) -> None:
        # One iteration for all epochs: loader processes live as long as the run.
        loader = DataLoader(
            self.dataset,
            batch_sampler=self._sampler(self.ranks.share_of),
            collate_fn=collate,
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_interrupts if self.ranks.count == 1 else _ignore_signals,
        )
        announced = None
        for raw, draws in zip(loader, self._sampler(), strict=True):
            before = self.position.images_seen
            epoch = before // self.images_in_epoch
            if epoch != announced:
                log.flush()
                log.message(f"=== Epoch: {epoch} ===")
                announced = epoch
            if before not in self.position.passed_over:
                self._step(raw, draws, epoch, log)
            self.position = replace(self.position, images_seen=before + len(draws))
            epoch_ends = self.position.images_seen % self.images_in_epoch == 0
            if log.steps_waiting >= (1 if self.options.debug else _LOG_EVERY_STEPS) or epoch_ends:
                log.flush()
            if before == 0:
                self._save_checkpoint()
                self._save_state(log)
            if epoch_ends:
                self._epoch_done(log)
            # The first process has the state, any of them may have been told to stop.
            due = self.ranks.first and time.monotonic() - self.state_saved_at > _STATE_EVERY_SECONDS
            due, stop = self.ranks.largest(due, interrupted.is_set())
            if due or stop:
                self._save_state(log)
            if stop:
                raise TrainingInterrupted(
                    f"interrupted after {self.position.images_seen} images; continue with --auto_resume"
                )

    def _sampler(self, share: Callable[[Sequence[int]], list[int]] = list) -> RunBatchSampler:
        options = self.options
        return RunBatchSampler(
            [is_real_section(s) for s in self.dataset.section_of],
            options.batch_size,
            seed=options.seed,
            epochs=options.epochs,
            start_images=self.position.images_seen,
            real_share=options.real_share,
            share=share,
        )

    def _step(self, raw: RawBatch, draws_of_all: list[int], epoch: int, log: StepFigures) -> None:
        """One optimizer step; its figures stay on the device until the log asks for them.

        Args:
            raw: this process's share of the batch.
            draws_of_all: the samples of the whole batch, as the sampler draws them.
        """
        started = time.perf_counter()
        stems = tuple(self.dataset.stems[index % len(self.dataset)] for index in draws_of_all)
        first, counted = self.ranks.place_of(len(draws_of_all))
        share = counted / len(draws_of_all)
        if self.ranks.count > 1:
            raw = raw.padded_to(*self.ranks.largest(*raw.images_BHW3.shape[1:3], *raw.maps_BChw.shape[2:]))
        options, before = self.options, self.position.images_seen
        augmentation = options.augmentation.zoomed(image_scale(options.start_scale, before / self.total_images))
        draws = draw_augmentation(augmentation, seed=options.seed, epoch=epoch, images_seen=before, indices=raw.indices)
        rate = learning_rate(options.lr_schedule, options.learningrate, before / self.images_in_epoch, options.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            batch = prepare_for_training(
                raw.to(self.device),
                self.record.preprocessing,
                options.task,
                augmentation,
                draws,
                self.dataset.stride,
            )
        with autocast_for(self.device, options.precision):
            prediction, sigma = self.lanes(batch.images_B3HW)
        result = self.objective(prediction, sigma, batch, before + first)
        loss, result = self.ranks.weighted(result.total, share), self.ranks.whole(result, share)
        # On a CPU looking costs nothing; on a GPU it would wait, so there the log looks, before any state is saved.
        if self.device.type == "cpu" and not torch.isfinite(result.total):
            raise NotFinite(before, stems)
        if self.ranks.first and raw.stems and log.wants_picture(epoch):
            grid_3HW = picture_grid(options.task, batch, self.record.preprocessing, prediction, sigma)
            log.picture(grid_3HW, epoch=epoch, images_seen=before + len(stems))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.lanes.backward()
        self.weights_move = True
        self.optimizer.step()
        self.weights_move, self.last_step = False, (before, stems)
        log.step_done(
            result,
            images_before=before,
            stems=stems,
            epoch=epoch,
            learning_rate=rate,
            seconds=time.perf_counter() - started,
        )

    def _save_checkpoint(self) -> None:
        if self.ranks.first:
            self.run.save_checkpoint(self.net, self.position.images_seen)

    def _epoch_done(self, log: StepFigures) -> None:
        self._check_weights()
        epochs_done = self.position.images_seen // self.images_in_epoch
        if self.ranks.first:
            save_network(self.net, self.run.latest)
        last = epochs_done == self.options.epochs
        # The last one too, whatever the number of epochs: selection looks at numbered checkpoints.
        if last or epochs_done % TASKS[self.options.task].checkpoint_every_epochs == 0:
            self._save_checkpoint()
            log.message(f"Saved a checkpoint after {self.position.images_seen} images")
            self._save_state(log)

    def _save_state(self, log: StepFigures | None) -> None:
        """Saves the state, after making sure (in every process) that it is a good one."""
        if log is not None:
            log.flush()
            self._check_weights()
            self.position = replace(self.position, log_bytes=log.sizes())
        if self.ranks.first:
            save_state(self.run.state, self.record, self.net, self.optimizer, self.position, parts=self.parts)
        self.state_saved_at = time.monotonic()

    def _save_after_failure(self, log: StepFigures) -> None:
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
        failed = after_failure(
            self.position, failure, self.last_step, finite_weights=self._weights_are_finite(), state=self.run.state
        )
        state = self.ranks.first_decides(lambda: load_state(self.run.state))
        restored = restore(state, self.net, self.optimizer)
        self.position = replace(restored, passed_over=failed.passed_over, failures=failed.failures)
        logger.warning("%s; back to the state after %d images, passing these over", failure, self.position.images_seen)


def ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches the whole process group; the loop stops the loaders when it has saved its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _ignore_signals(worker: int) -> None:
    """`torchrun` passes SIGTERM, too, on to the whole group; a loader ends when the loop closes it or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interrupt_flag(second_stops_at_once: bool = True) -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a run stops between two steps.

    Args:
        second_stops_at_once: what a second one does; `torchrun` may send several, and kills who does not stop in time.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(signum, frame):
        if event.is_set() and second_stops_at_once:
            raise KeyboardInterrupt
        event.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
