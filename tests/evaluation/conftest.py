"""Runs without a training: random weights beside a record that says what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dataloader.preprocessing import Preprocessing
from dataloader.scenes import PUBLISHED_SCENES
from evaluation.metrics import coord_summary
from evaluation.reports import Subject, weights_fingerprint, write_results
from networks import Architecture, TransPoseNet, save_network
from runs.record import RunRecord, SectionRecord, write_record

TINY = Architecture(tiny=True)
COLOURS = Preprocessing(64, False, (0.3, 0.4, 0.5), (0.2, 0.25, 0.3))


def make_record(name: str, **changes) -> RunRecord:
    """A record of a tiny coord run on synthetic images of `scene`."""
    values = {
        "name": name, "scene": "scene", "task": "coord", "stage": "pretrain", "kind": "sim_only", "domain": None,
        "sim_chunk": 1.0, "real_chunk": 0.0, "architecture": TINY,
        "options": {"seed": 2021, "session": "", "precision": "float32"},
        "sections": (SectionRecord("train_sim", 12, "0" * 16),), "images_per_epoch": 12, "preprocessing": COLOURS,
        "statistics": PUBLISHED_SCENES["urbanscape"], "frame": None, "cameras": None, "parents": (), "software": {},
    }  # fmt: skip
    return RunRecord(**{**values, **changes})


def make_run(folder: Path, *, iterations=(4,), latest: bool = False, mean=None, **changes) -> RunRecord:
    """A run folder with random weights and its record."""
    folder.mkdir(parents=True, exist_ok=True)
    record = make_record(folder.name, **changes)
    names = [f"ckpt_iter_{iteration:07d}.net" for iteration in iterations] + (["model.net"] if latest else [])
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        save_network(TransPoseNet(record.architecture, mean), folder / name)
    write_record(folder, record)
    return record


def subject(weights: Path, section: str = "val_sim", *, content: str = "c0", settings=None) -> Subject:
    """What a result of present weights is bound to."""
    return Subject(section, weights_fingerprint(weights), (SectionRecord(section, 1, content),), settings or {"seed": 1})


def write_coord(folder: Path, name: str, median_m: float, section: str = "val_sim", *, coord_m: float = 1.0, **of) -> Path:
    """A coord result of a weights file whose content is made up, unless it is there."""
    weights = folder / name
    if not weights.is_file():
        weights.write_bytes(name.encode())
    summary = coord_summary([median_m], [1.0], np.array([coord_m]))
    write_results(weights, "coord", subject(weights, section, **of), summary, [{"stem": "a"}])
    return weights


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """Results of three weights files of one run; the unnumbered ones are the best."""
    folder = tmp_path / "town-coord-run"
    folder.mkdir()
    for name, median_m in (("ckpt_iter_0000010.net", 2.004), ("ckpt_iter_0000020.net", 2.001), ("model.net", 1.5)):
        write_coord(folder, name, median_m)
    write_record(
        folder, make_record(folder.name, scene="town", stage="finetune", kind="pairs", domain="in_place", real_chunk=0.5)
    )
    return folder
