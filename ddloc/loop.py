"""The training of a stage: several networks and optimizers, over the run folder, state and log of `training`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader

from dataloader.prepare import RawBatch
from ddloc.identity import StageData, build_record, open_data
from ddloc.options import StageOptions
from ddloc.pairs import PairSampler, collate_pairs
from ddloc.stage import LossNotFinite, Moment, Stage
from ddloc.stage_regression import FineTuningStage, JointStage, RegressorStage
from ddloc.stage_translation import AttentionStage, InpainterStage, TranslatorStage
from ddloc.validation import Score
from ddloc.weights import best_path, save
from records.files import write_json
from runs.device import choose_device
from runs.record import RunRecord, write_record
from threads import configure_threads
from training.going_back import NotFinite, after_failure
from training.log import TrainingLog
from training.loop import TrainingInterrupted, ignore_interrupts, interrupt_flag
from training.run_folder import RunFolder, check_same_run
from training.state import Position, load_state, record_in, restore_position, save_contents

logger = logging.getLogger(__name__)

STAGE_CLASSES: dict[str, type[Stage]] = {
    "C": RegressorStage,
    "T": TranslatorStage,
    "A": AttentionStage,
    "I": InpainterStage,
    "joint": JointStage,
    "finetune": FineTuningStage,
}
VALIDATION_NAME = "validation.json"
_LOG_EVERY_STEPS = 10
_STATE_EVERY_SECONDS = 60.0


def train_stage(options: StageOptions) -> RunFolder:
    """Runs or resumes a stage.

    Returns:
        its folder, which holds `best_<network>.pth`.
    Raises:
        TrainingInterrupted: Ctrl-C or SIGTERM; everything is saved.
        FileExistsError: the stage exists and --auto_resume was not given.
        ValueError, OSError: bad data, flags or weights, a stage before it is missing, another run in the folder.
        FloatingPointError: the loss is not finite again and again.
    """
    device = choose_device(options.device)
    folder = options.project_dir / options.stage
    run = RunFolder(folder, folder)
    if run.exists and not options.auto_resume:
        raise FileExistsError(
            f"stage {options.stage} exists: {folder}; continue with --auto_resume or choose --project_name"
        )
    data = open_data(options)
    record = build_record(options, data, run.record())
    state = load_state(run.state) if run.state.is_file() else None
    if state is not None:
        check_same_run(record_in(state, run.state), record, run, name_flag="--project_name")
    if run.done:
        logger.info("stage %s is already done: %s", options.stage, folder)
        return run
    # Into how many threads an operation is split decides the last bits: a property of the run, wherever it goes on.
    cores = configure_threads()
    threads = state["threads"] if state is not None else cores
    with run.held():
        _StageTrainer(options, run, record, data, device, threads).run_from(state)
    return run


class _StageTrainer:
    def __init__(
        self,
        options: StageOptions,
        run: RunFolder,
        record: RunRecord,
        data: StageData,
        device: torch.device,
        threads: int,
    ):
        self.options, self.run, self.record, self.data, self.device = options, run, record, data, device
        self.threads = threads
        torch.manual_seed(options.seed)
        self.stage = STAGE_CLASSES[options.stage](options, record, options.project_dir, device)
        self.stage.validation_photos, self.stage.validation_renders = data.validation_photos, data.validation_renders
        self.photos, self.epochs = len(data.pairs), options.total_epoch_num
        self.position = Position()
        self.scores: list[dict[str, Any]] = []
        self.last_step: tuple[int, tuple[str, ...]] = (0, ())
        self.weights_move = False

    def run_from(self, state: Mapping[str, Any] | None) -> None:
        """Trains to the end, going back to the last good state when a loss is not finite."""
        torch.set_num_threads(self.threads)
        if state is not None:
            self._restore(state)
        self._save_state(log=None)
        write_record(self.run.output, self.record)
        with interrupt_flag() as interrupted:
            while True:
                total = self.epochs * self.photos
                log = TrainingLog(
                    self.run.output, f"ddloc {self.options.stage}", total, self.position.images_seen, self.position.log_bytes
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
        seen = self.position.images_seen
        parameters = {name: sum(p.numel() for p in net.parameters()) for name, net in self.stage.networks.items()}
        log.message(
            "\n".join([
                f"***** Stage {self.options.stage} has been started *****" if seen == 0 else f"Resumed after {seen} images",
                f"Software: {dict(self.record.software)}",
                *(f"{key}: {value}" for key, value in self.record.options.items()),
                f"Parameters: {parameters}",
                f"Images per epoch: {self.photos}",
            ])
        )  # fmt: skip
        if "perceptual" in self.record.options:
            logger.info("perceptual and style loss by the features of %s", self.record.options["perceptual"])

    def _steps(self, log: TrainingLog, interrupted: threading.Event) -> None:
        options = self.options
        loader = DataLoader(
            self.data.pairs,
            batch_sampler=PairSampler(
                self.photos,
                options.batch_size,
                seed=options.seed,
                epochs=self.epochs,
                start_images=self.position.images_seen,
            ),
            collate_fn=collate_pairs,
            num_workers=options.num_workers,
            worker_init_fn=ignore_interrupts,
        )
        for real, partner in loader:
            before = self.position.images_seen
            if before not in self.position.passed_over:
                self._step(real, partner, log)
            self.position = replace(self.position, images_seen=before + len(real.stems))
            epochs_done, inside = divmod(self.position.images_seen, self.photos)
            if log.steps_waiting >= _LOG_EVERY_STEPS or inside == 0:
                log.flush()
            if inside == 0 and (epochs_done % options.save_steps == 0 or epochs_done == self.epochs):
                self._checkpoint(log, epochs_done)
            elif time.monotonic() - self.state_saved_at > _STATE_EVERY_SECONDS:
                self._save_state(log)
            if interrupted.is_set():
                self._save_state(log)
                raise TrainingInterrupted(
                    f"interrupted after {self.position.images_seen} images; continue with --auto_resume"
                )

    def _step(self, real: RawBatch, partner: RawBatch, log: TrainingLog) -> None:
        started = time.perf_counter()
        before = self.position.images_seen
        moment = Moment(before, before // self.photos, before / self.photos)
        rate = self.options.rate(moment.epochs_done)
        self.stage.set_rate(rate)
        self.weights_move = True
        try:
            result = self.stage.step(real.to(self.device), partner.to(self.device), moment)
        except LossNotFinite:
            raise NotFinite(before, real.stems) from None
        self.weights_move, self.last_step = False, (before, real.stems)
        log.step_done(
            result,
            images_before=before,
            stems=real.stems,
            epoch=moment.epoch,
            learning_rate=rate,
            seconds=time.perf_counter() - started,
        )

    def _checkpoint(self, log: TrainingLog, epochs_done: int) -> None:
        """Validates the networks as they are, and keeps them, as the best ones when they are."""
        self._check_weights()
        score = self._validated()
        best = not self.scores or score < min(Score(entry["figures"]) for entry in self.scores)
        for name in self.stage.handed_on:
            save(self.stage.networks[name], self.run.output / f"epoch-{epochs_done}_{name}.pth")
            if best:
                save(self.stage.networks[name], best_path(self.run.output, name))
        self.scores.append({"epoch": epochs_done, "figures": score.figures})
        told = f"Validation after epoch {epochs_done}: {score}{' (best so far)' if best else ''}"
        log.message(told)
        logger.info("%s: %s", self.options.stage, told)
        write_json(self.run.output / VALIDATION_NAME, self.scores)
        self._save_state(log)

    def _validated(self) -> Score:
        for net in self.stage.networks.values():
            net.eval()
        with torch.no_grad():
            score = self.stage.validate()
        for net in self.stage.networks.values():
            net.train()
        torch.set_num_threads(self.threads)  # evaluation has its own idea
        return score

    def _save_state(self, log: TrainingLog | None) -> None:
        """Saves the state, after making sure that it is a good one."""
        if log is not None:
            log.flush()
            self._check_weights()
            self.position = replace(self.position, log_bytes=log.sizes())
        contents = {
            "networks": {name: net.state_dict() for name, net in self.stage.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.stage.optimizers.items()},
            "stage": self.stage.contents(),
            "scores": self.scores,
            "threads": self.threads,
        }
        save_contents(self.run.state, self.record, self.position, contents)
        self.state_saved_at = time.monotonic()

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name, net in self.stage.networks.items():
            net.load_state_dict(state["networks"][name])
        for name, optimizer in self.stage.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.stage.restore_contents(state["stage"])
        self.scores = list(state["scores"])
        self.position = restore_position(state)

    def _save_after_failure(self, log: TrainingLog) -> None:
        """Saves what can be saved; what stopped the run is the message, not this."""
        if self.weights_move:
            return  # some of the networks may have moved
        try:
            self._save_state(log)
        except (NotFinite, OSError, RuntimeError) as error:
            logger.debug("the state could not be saved either: %s", error)

    def _weights_are_finite(self) -> bool:
        return all(bool(torch.isfinite(p).all()) for net in self.stage.networks.values() for p in net.parameters())

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
        self.weights_move = False
        self._restore(load_state(self.run.state))
        self.position = replace(self.position, passed_over=failed.passed_over, failures=failed.failures)
        logger.warning("%s; back to the state after %d images, passing these over", failure, self.position.images_seen)
