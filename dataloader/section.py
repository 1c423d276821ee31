"""Photos as views, and sections of a prepared data set as samples: a view with its label, paired by stem."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from dataloader.cache import SampleCache
from dataloader.images import decode_image, resize_image, resized_shape
from dataloader.labels import label_camera
from dataloader.packed import PackedSection, open_packed, read_stored
from geometry.cameras import resize_intrinsics
from tasks import task_named

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
_MAX_NAMED = 5
_MIN_IMAGE_HEIGHT = 16


@dataclass(frozen=True)
class View:
    """A photo as loaded: before normalisation and augmentation.

    Attributes:
        image_HW3: uint8 RGB, resized to the wanted shorter side.
        K_33: float64 intrinsics of `image_HW3`, pixels; NaN for a photo that came without.
        stem: `section/stem`.
    """

    image_HW3: np.ndarray
    K_33: torch.Tensor
    stem: str


@dataclass(frozen=True)
class Label:
    """What is known of a photo, on the grid of the image that the label was made for: the one stored, or a smaller one.

    Attributes:
        map_Chw: [C, h, w] float32; [1, H, W] uint8 class indices for semantics.
        valid_1hw: bool [1, h, w].
        world_from_cam_44: float64 camera-to-world pose, metres.
        K_33: float64 intrinsics of that image, pixels.
        stride: pixels of that image per cell, 8 or 1.
    """

    map_Chw: torch.Tensor
    valid_1hw: torch.Tensor
    world_from_cam_44: torch.Tensor
    K_33: torch.Tensor
    stride: int


@dataclass(frozen=True)
class Sample:
    """A view with its label.

    Attributes:
        index: as it was asked for: position in the data set, plus its length for each further appearance in an epoch.
    """

    view: View
    label: Label
    index: int

    @property
    def image_HW3(self) -> np.ndarray:
        """The view's picture, uint8 RGB."""
        return self.view.image_HW3


@dataclass(frozen=True)
class SampleFiles:
    """The files of one sample."""

    image: Path
    pose: Path
    calibration: Path
    label: Path


class ViewDataset(Dataset):
    """Photos without truth, decoded and resized as those of sections are.

    Args:
        photos: paths, or pairs of a path and the intrinsics [3, 3] of the photo as stored.
        image_height: shorter side after loading, pixels.
    Raises:
        ValueError: no photo, or too small a height.
    """

    def __init__(self, photos: Sequence[Path | str | tuple[Path | str, torch.Tensor]], image_height: int):
        _check_height(image_height)
        if not photos:
            raise ValueError("no photo was given")
        unknown_33 = torch.full((3, 3), float("nan"), dtype=torch.float64)
        pairs = [photo if isinstance(photo, tuple) else (photo, unknown_33) for photo in photos]
        self.files = [Path(path) for path, _ in pairs]
        self.stems = [f"{path.parent.name}/{path.stem}" for path in self.files]
        self.image_height = image_height
        self._K_33 = [torch.as_tensor(K_33, dtype=torch.float64) for _, K_33 in pairs]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> View:
        return view_of(decode_image(self.files[index]), self._K_33[index], self.image_height, self.stems[index])


class SectionDataset(Dataset):
    """All samples of one or more sections, sorted by stem within each section.

    An index may exceed the length: sample `index % len` is meant, in another appearance (see `RunBatchSampler`).

    Args:
        section_dirs: section folders (`rgb/ poses/ calibration/ init/ ...`).
        task: whose labels are read.
        image_height: shorter side after loading, pixels.
        stride: pixels per cell of the predictions that the labels are for; labels that are too coarse are refused when
            read. None: labels of either stride.
        cache_bytes: memory for decoded samples, which loader processes share; those that do not fit are decoded each time.
    Raises:
        FileNotFoundError: a section or the counterpart of a file is missing; all problems are in the message.
        ValueError: unknown task, an empty section, or two files of one stem.
    """

    def __init__(
        self,
        section_dirs: Sequence[Path],
        task: str,
        image_height: int,
        *,
        stride: int | None = None,
        cache_bytes: int = 0,
    ):
        self.task = task_named(task)
        _check_height(image_height)
        if not section_dirs:
            raise ValueError("no section was chosen")
        self.image_height, self.stride = image_height, stride
        self.files: list[SampleFiles] = []
        self.section_of: list[str] = []
        self._packs: dict[Path, PackedSection | None] = {}
        for section_dir in section_dirs:
            paired = _pair_by_stem(Path(section_dir), self.task.label_folder, self.task.label_suffix)
            self.files += paired
            self._packs[Path(section_dir)] = open_packed(section_dir)
            self.section_of += [Path(section_dir).name] * len(paired)
        self.stems = [f"{section}/{files.image.stem}" for section, files in zip(self.section_of, self.files)]
        self.cache = SampleCache(len(self.files), cache_bytes)

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        position = index % len(self)
        arrays = self.cache.get(position)
        if arrays is None:
            view, label = self._load(position)
            self.cache.put(position, _arrays_of(view, label))
        else:
            view, label = _from_arrays(self.stems[position], arrays)
        return Sample(view, label, index)

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        """Samples of a batch; decoded on all cores, unless this is one of several loader processes."""
        if get_worker_info() is not None:
            return [self[index] for index in indices]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            return list(pool.map(self.__getitem__, indices))

    def _load(self, position: int) -> tuple[View, Label]:
        files = self.files[position]
        pack = self._packs[files.image.parent.parent]
        if pack is not None:
            stored = pack.read(files.image.stem, self.task)
        else:
            stored = read_stored(files.image, files.pose, files.calibration, files.label, self.task)
        H, W = stored.image_HW3.shape[:2]
        camera = label_camera(files.label, stored.map_Chw, H, W, self.task, stored.K_33)
        if self.stride is not None and camera.stride > self.task.stride(self.stride == 1):
            raise ValueError(f"label file {files.label} {too_coarse(camera.stride)}")
        label = Label(stored.map_Chw, stored.valid_1hw, stored.world_from_cam_44, camera.K_33, camera.stride)
        return view_of(stored.image_HW3, stored.K_33, self.image_height, self.stems[position]), label


def _arrays_of(view: View, label: Label) -> list[np.ndarray]:
    """All of a sample but its stem."""
    tensors = (view.K_33, label.map_Chw, label.valid_1hw, label.world_from_cam_44, label.K_33)
    return [view.image_HW3, *(tensor.numpy() for tensor in tensors), np.array([label.stride])]


def _from_arrays(stem: str, arrays: Sequence[np.ndarray]) -> tuple[View, Label]:
    """What `_arrays_of` took apart."""
    image_HW3, *others, stride_1 = arrays
    K_33, map_Chw, valid_1hw, world_from_cam_44, K_label_33 = map(torch.from_numpy, others)
    return View(image_HW3, K_33, stem), Label(map_Chw, valid_1hw, world_from_cam_44, K_label_33, int(stride_1[0]))


def too_coarse(stored_stride: int) -> str:
    """Why labels do not serve full-size predictions, and what does."""
    return (
        f"has one cell per {stored_stride} pixels, too coarse for a full-size network: make the data with "
        "`--fullsize` (scene folder `<scene>-fullsize`)"
    )


def _check_height(image_height: int) -> None:
    if image_height < _MIN_IMAGE_HEIGHT:
        raise ValueError(f"image height must be at least {_MIN_IMAGE_HEIGHT} px, got {image_height}")


def view_of(stored_HW3: np.ndarray, K_33: torch.Tensor, image_height: int, stem: str) -> View:
    """A decoded picture (uint8 RGB [H, W, 3]) with its intrinsics, resized to the wanted shorter side."""
    H, W = stored_HW3.shape[:2]
    image_HW3 = resize_image(stored_HW3, *resized_shape(H, W, image_height))
    return View(image_HW3, resize_intrinsics(K_33, image_HW3.shape[1] / W, image_HW3.shape[0] / H), stem)


def stems_in(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Files of a folder by stem, sorted; none where there is no folder.

    Hidden ones, such as the `._name` that another system leaves beside each file, are none.

    Raises:
        ValueError: two files of one stem.
    """
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes:
            continue
        if path.stem in found:
            raise ValueError(f"two files of one name in {folder}: {found[path.stem].name} and {path.name}")
        found[path.stem] = path
    return found


def _pair_by_stem(section_dir: Path, label_folder: str, label_suffix: str) -> list[SampleFiles]:
    folders = {"rgb": IMAGE_SUFFIXES, "poses": {".txt"}, "calibration": {".txt"}, label_folder: {label_suffix}}
    if not section_dir.is_dir():
        present = sorted(p.name for p in section_dir.parent.iterdir() if p.is_dir()) if section_dir.parent.is_dir() else []
        raise FileNotFoundError(f"section folder not found: {section_dir}" + (f"; present: {present}" if present else ""))
    absent = [name for name in folders if not (section_dir / name).is_dir()]
    if absent:
        raise FileNotFoundError(f"section {section_dir} lacks the folders {absent}")
    found = {name: stems_in(section_dir / name, suffixes) for name, suffixes in folders.items()}
    stems = sorted(set().union(*found.values()))
    missing = [f"{name}/{stem}" for stem in stems for name in folders if stem not in found[name]]
    if missing:
        more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
        raise FileNotFoundError(f"section {section_dir} is incomplete, missing: {', '.join(missing[:_MAX_NAMED])}{more}")
    if not stems:
        raise ValueError(f"section {section_dir} is empty")
    return [SampleFiles(found["rgb"][s], found["poses"][s], found["calibration"][s], found[label_folder][s]) for s in stems]
