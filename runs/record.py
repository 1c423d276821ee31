"""The record of a training run: everything that decides its result, kept in its state and beside its weights."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataloader.preprocessing import Preprocessing
from dataloader.scenes import SceneStatistics
from networks.architecture import Architecture
from networks.safetensors_file import SUFFIX, read_texts
from records import fingerprint
from records.files import plain, read_json, write_json
from records.options import from_record

logger = logging.getLogger(__name__)

RECORD_NAME = "training.json"
RECORD_FORMAT = "crossloc run record"
RECORD_VERSION = 1
# Under this name the record is a text in the header of a safetensors file.
RECORD_TEXT = "crossloc_record"
STAGES = ("pretrain", "finetune", "decoder", "e2e")
KINDS = ("sim_only", "pairs", "real_only")
DOMAINS = ("in_place", "out_of_place")


@dataclass(frozen=True)
class SectionRecord:
    """A section that a run was trained on, with the fingerprint of what it held."""

    name: str
    samples: int
    fingerprint: str


@dataclass(frozen=True)
class ParentRecord:
    """Weights that a run started from.

    Attributes:
        role: the flag that named them.
        path: where they lay; may have moved since.
        fingerprint: of the weights file's content.
        name: the run that made them; None where no record says.
    """

    role: str
    path: str
    fingerprint: str
    name: str | None


@dataclass(frozen=True)
class CameraRecord:
    """The cameras that a run was trained on: focal length in units of the shorter image side, and aspect ratio."""

    focal_min: float
    focal_max: float
    aspect_min: float
    aspect_max: float


@dataclass(frozen=True)
class RunRecord:
    """Everything that decides the result of a run.

    Attributes:
        name: the run folder's name.
        stage: pretrain (from scratch), finetune (from weights), decoder (fused encoders) or e2e; one of DDLoc's six.
        kind: what was trained on: sim_only, pairs or real_only. domain: of the real photos; None for sim_only.
        sim_chunk: share of the synthetic images that the network has seen, be it before this run; None: not known.
        real_chunk: share of the real photos.
        architecture: None for networks of another family, which `options` describe.
        options: the options that decide the result, by flag.
        sections: what was trained on. images_per_epoch: their samples.
        preprocessing, statistics: measured on these very sections unless the scene is a published one.
        frame: CRS and origin of the scene's coordinates, where the data set says; classes too.
        cameras: what the training saw; None for runs of other systems.
        parents: what the run started from.
        software: versions that the run began with.
        geodata: what the sections were rendered from, to refine answers by, where the data set says; decides nothing.
    """

    name: str
    scene: str
    task: str
    stage: str
    kind: str
    domain: str | None
    sim_chunk: float | None
    real_chunk: float
    architecture: Architecture | None
    options: Mapping[str, Any]
    sections: tuple[SectionRecord, ...]
    images_per_epoch: int
    preprocessing: Preprocessing
    statistics: SceneStatistics
    frame: Mapping[str, Any] | None
    cameras: CameraRecord | None
    parents: tuple[ParentRecord, ...]
    software: Mapping[str, str]
    geodata: Mapping[str, Any] | None = None

    @property
    def size(self) -> str:
        """tiny or full; other for networks of another family."""
        if self.architecture is None:
            return "other"
        return "tiny" if self.architecture.tiny else "full"

    @property
    def seed(self) -> int:
        return int(self.options["seed"])

    def to_json(self) -> dict[str, Any]:
        """JSON form; `from_json` is its inverse."""
        return {"format": RECORD_FORMAT, "version": RECORD_VERSION, **plain(self)}

    @classmethod
    def from_json(cls, content: Any, what: str) -> RunRecord:
        """The record of a JSON form.

        Raises:
            ValueError: of another version, or damaged; names `what`.
        """
        if not is_record(content):
            raise ValueError(f"{what} is not the record of a run")
        if content.get("version") != RECORD_VERSION:
            raise ValueError(f"{what} has version {content.get('version')}; this software reads version {RECORD_VERSION}")
        values = {key: value for key, value in content.items() if key not in ("format", "version", "weights_fingerprint")}
        try:
            nested = {
                "architecture": values["architecture"] and from_record(Architecture, values["architecture"], "architecture"),
                "preprocessing": from_record(Preprocessing, values["preprocessing"], "preprocessing"),
                "statistics": from_record(SceneStatistics, values["statistics"], "statistics"),
                "sections": tuple(from_record(SectionRecord, v, "section") for v in values["sections"]),
                "parents": tuple(from_record(ParentRecord, v, "parent") for v in values["parents"]),
                "cameras": values["cameras"] and from_record(CameraRecord, values["cameras"], "cameras"),
            }
            return from_record(cls, {**values, **nested}, "record")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{what} is damaged: {error}") from None


def is_record(content: Any) -> bool:
    """Whether a JSON content claims to be the record of a run."""
    return isinstance(content, dict) and content.get("format") == RECORD_FORMAT


@dataclass(frozen=True)
class Difference:
    """A field in which two records of a run disagree."""

    field: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.field} was {_short(self.before)}, now {_short(self.now)}"


def _short(value: Any) -> str:
    text = " ".join(str(v) for v in value) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def differences(before: RunRecord, now: RunRecord, *, ignore: tuple[str, ...] = ()) -> list[Difference]:
    """What would make the continuation another run, by flag, section or input; versions of software are not compared.

    Args:
        ignore: options and fields that may differ.
    """
    found = [
        Difference(f"--{name}", before.options.get(name), now.options.get(name))
        for name in sorted(set(before.options) | set(now.options))
        if plain(before.options.get(name)) != plain(now.options.get(name)) and name not in ignore
    ]
    found += _named_differences("section", _by_name(before.sections), _by_name(now.sections))
    old = {parent.role: parent.fingerprint for parent in before.parents}
    new = {parent.role: parent.fingerprint for parent in now.parents}
    found += _named_differences("the weights of", old, new)
    for name in ("scene", "task", "stage", "kind", "domain", "architecture", "preprocessing", "statistics", "frame"):
        if name in ignore:
            continue
        was, is_now = plain(getattr(before, name)), plain(getattr(now, name))
        if isinstance(was, dict) and isinstance(is_now, dict):
            keys = sorted(set(was) | set(is_now))
            found += [Difference(f"{name}.{k}", was.get(k), is_now.get(k)) for k in keys if was.get(k) != is_now.get(k)]
        elif was != is_now:
            found.append(Difference(name, was, is_now))
    return found


def _by_name(sections: tuple[SectionRecord, ...]) -> dict[str, str]:
    return {section.name: f"{section.samples} samples, content {section.fingerprint}" for section in sections}


def _named_differences(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    names = [*before, *(name for name in now if name not in before)]
    return [
        Difference(f"{what} {name}", before.get(name, "absent"), now.get(name, "absent"))
        for name in names
        if before.get(name) != now.get(name)
    ]


def section_record(section_dir: Path, label_folder: str, samples: int) -> SectionRecord:
    """The record of a section as a task reads it; hashes its files once (see `records.fingerprint`)."""
    folders = ("rgb", "poses", "calibration", label_folder)
    return SectionRecord(Path(section_dir).name, samples, fingerprint.of_folder(Path(section_dir), folders))


@cache
def software_versions() -> dict[str, str]:
    """Versions of what computes, and of this project where it is a git checkout."""
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    root = Path(__file__).resolve().parents[1]
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=10
        )
        if described.returncode == 0:
            versions["project"] = described.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        pass  # no git: the versions above are still worth keeping
    return versions


def write_record(folder: Path, record: RunRecord) -> None:
    """Writes `training.json` into a run's folder, atomically."""
    write_json(folder / RECORD_NAME, record.to_json())


def write_sidecar(weights: Path, record: RunRecord) -> None:
    """Writes `<stem>.json` beside weights that left their run's folder, bound to their content."""
    write_json(weights.with_suffix(".json"), {**record.to_json(), "weights_fingerprint": fingerprint.of_file(weights)})


def read_record(path: Path) -> RunRecord:
    """Reads a record; FileNotFoundError or ValueError naming the file."""
    return RunRecord.from_json(read_json(path, "run record"), f"run record {path}")


def record_of(weights: Path) -> RunRecord | None:
    """The record of a weights file: `<stem>.json` beside it, else the folder's training.json; None without one.

    A JSON file of somebody else beside the weights is passed over with a warning. Safetensors hold their record themselves.

    Raises:
        ValueError: the record is damaged, of another version, or was written for other weights.
    """
    if weights.suffix == SUFFIX:
        return _record_inside(weights)
    sidecar = weights.with_suffix(".json")
    if sidecar.is_file():
        content = _json_or_none(sidecar)
        if is_record(content):
            bound_to = content.get("weights_fingerprint")
            if bound_to is not None and bound_to != fingerprint.of_file(weights):
                raise ValueError(
                    f"{sidecar} is the record of other weights than {weights}: the file was replaced; "
                    "export the weights again, or delete the record to use them without one"
                )
            return RunRecord.from_json(content, f"run record {sidecar}")
        logger.warning("%s is not the record of a run; taken for somebody else's file", sidecar)
    in_folder = weights.parent / RECORD_NAME
    return read_record(in_folder) if in_folder.is_file() else None


def _record_inside(weights: Path) -> RunRecord | None:
    text = read_texts(weights).get(RECORD_TEXT)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the record in {weights} is damaged: {error}") from None
    return RunRecord.from_json(content, f"the record in {weights}")


def _json_or_none(path: Path) -> Any:
    try:
        return read_json(path, "file")
    except ValueError:
        return None
