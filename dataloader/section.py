"""Sections of a prepared data set as indexable samples, paired by stem."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from dataloader.images import decode_image, resize_image, resized_shape
from dataloader.labels import read_calibration, read_label, read_pose
from geometry.cameras import resize_intrinsics
from geometry.grid import grid_size
from tasks import task_named

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
_MAX_NAMED = 5


@dataclass(frozen=True)
class Sample:
    """One image as loaded: before normalisation and augmentation.

    Attributes:
        image_HW3: uint8 RGB, resized to the wanted shorter side.
        label: [C, h, w] on the stride-8 grid of the stored image ([1, H, W] classes for semantics).
        valid: bool [1, h, w].
        world_from_cam_44: float64 pose.
        K_image_33, K_label_33: float64 intrinsics of `image_HW3` and of the stored image, whose grid the label is on.
        stem: `section/stem`.
    """

    image_HW3: np.ndarray
    label: torch.Tensor
    valid: torch.Tensor
    world_from_cam_44: torch.Tensor
    K_image_33: torch.Tensor
    K_label_33: torch.Tensor
    stem: str


@dataclass(frozen=True)
class _Files:
    image: Path
    pose: Path
    calibration: Path
    label: Path


class SectionDataset(Dataset):
    """All samples of one or more sections, sorted by stem within each section.

    Args:
        section_dirs: section folders (`rgb/ poses/ calibration/ init/ ...`).
        task: whose labels are read.
        image_height: shorter side after loading, pixels.
        cache: keep decoded samples in memory (for training without loader processes).
    Raises:
        FileNotFoundError: a section or the counterpart of a file is missing; all problems are in the message.
        ValueError: unknown task or an empty section.
    """

    def __init__(self, section_dirs: list[Path], task: str, image_height: int, *, cache: bool = False):
        self.task = task_named(task)
        if image_height < 16:
            raise ValueError(f"image height must be at least 16 px, got {image_height}")
        if not section_dirs:
            raise ValueError("no section was chosen")
        self.image_height = image_height
        self.files: list[_Files] = []
        self.section_of: list[str] = []
        for section_dir in section_dirs:
            paired = _pair_by_stem(Path(section_dir), self.task.label_folder, self.task.label_suffix)
            self.files += paired
            self.section_of += [Path(section_dir).name] * len(paired)
        self._cache: dict[int, Sample] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        sample = self._load(index)
        if self._cache is not None:
            self._cache[index] = sample
        return sample

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        """Samples of a batch; decoded on all cores, unless this is one of several loader processes."""
        if get_worker_info() is not None:
            return [self[index] for index in indices]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            return list(pool.map(self.__getitem__, indices))

    def _load(self, index: int) -> Sample:
        files = self.files[index]
        stored_HW3 = decode_image(files.image)
        H, W = stored_HW3.shape[:2]
        image_HW3 = resize_image(stored_HW3, *resized_shape(H, W, self.image_height))
        K_label_33 = read_calibration(files.calibration, H, W)
        label, valid = read_label(files.label, self.task)
        expected = (H, W) if self.task.fullsize_only else grid_size(H, W)
        if tuple(label.shape[1:]) != expected:
            raise ValueError(
                f"label file {files.label} has a map of {list(label.shape[1:])}, but {files.image} is {H} x {W} and "
                f"needs {list(expected)}"
            )
        return Sample(
            image_HW3, label, valid, read_pose(files.pose),
            resize_intrinsics(K_label_33, image_HW3.shape[1] / W, image_HW3.shape[0] / H), K_label_33,
            f"{self.section_of[index]}/{files.image.stem}",
        )


def _stems(folder: Path, suffixes: set[str]) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in suffixes}


def _pair_by_stem(section_dir: Path, label_folder: str, label_suffix: str) -> list[_Files]:
    folders = {"rgb": _IMAGE_SUFFIXES, "poses": {".txt"}, "calibration": {".txt"}, label_folder: {label_suffix}}
    if not section_dir.is_dir():
        present = sorted(p.name for p in section_dir.parent.iterdir() if p.is_dir()) if section_dir.parent.is_dir() else []
        raise FileNotFoundError(f"section folder not found: {section_dir}" + (f"; present: {present}" if present else ""))
    absent = [name for name in folders if not (section_dir / name).is_dir()]
    if absent:
        raise FileNotFoundError(f"section {section_dir} lacks the folders {absent}")
    found = {name: _stems(section_dir / name, suffixes) for name, suffixes in folders.items()}
    stems = sorted(set().union(*found.values()))
    missing = [f"{name}/{stem}" for stem in stems for name in folders if stem not in found[name]]
    if missing:
        more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
        raise FileNotFoundError(f"section {section_dir} is incomplete, missing: {', '.join(missing[:_MAX_NAMED])}{more}")
    if not stems:
        raise ValueError(f"section {section_dir} is empty")
    return [
        _Files(found["rgb"][s], found["poses"][s], found["calibration"][s], found[label_folder][s]) for s in stems
    ]
