"""A section in one memory-mapped file, for disks on which small files are slow; `dataloader.packing` makes it.

`packed.npy` lies beside the section's folders and holds, decoded, what they hold; samples read from it are the same to the
last bit. It knows the fingerprint of the files that it was made from and is refused when they changed. The file is a
one-dimensional .npy array of bytes: the samples' arrays one after the other, and their index as JSON at the end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dataloader.images import decode_image
from dataloader.labels import read_calibration, read_label, read_pose
from records import fingerprint
from tasks import TASKS, Task

PACKED = "packed.npy"
VERSION = 1
FOLDERS = ("rgb", "poses", "calibration", *(task.label_folder for task in TASKS.values()))
# numpy pads the header of a .npy file of one dimension to this.
HEADER_BYTES = 128
LENGTH_BYTES = 8


@dataclass(frozen=True)
class Stored:
    """What the files of a sample hold.

    Attributes:
        image_HW3: uint8 RGB as stored. K_33, world_from_cam_44: float64.
        map_Chw, valid_1hw: see `dataloader.labels.read_label`.
    """

    image_HW3: np.ndarray
    K_33: torch.Tensor
    world_from_cam_44: torch.Tensor
    map_Chw: torch.Tensor
    valid_1hw: torch.Tensor


def read_stored(image: Path, pose: Path, calibration: Path, label: Path, task: Task) -> Stored:
    """A sample from its files; every problem names its file."""
    image_HW3 = decode_image(image)
    map_Chw, valid_1hw = read_label(label, task)
    K_33 = read_calibration(calibration, *image_HW3.shape[:2])
    return Stored(image_HW3, K_33, read_pose(pose), map_Chw, valid_1hw)


class PackedSection:
    """The packed file of a section, mapped into memory.

    Raises:
        ValueError: damaged, of another version, or made from files that have changed since.
    """

    def __init__(self, section_dir: Path):
        self.section_dir, path = Path(section_dir), Path(section_dir) / PACKED
        try:
            self._bytes = np.load(path, mmap_mode="r", allow_pickle=False)
            length = int.from_bytes(self._bytes[-LENGTH_BYTES:].tobytes(), "little")
            index = json.loads(self._bytes[-LENGTH_BYTES - length : -LENGTH_BYTES].tobytes())
            version, made_from, self._index = index["version"], index["made_from"], index["samples"]
        except (ValueError, OSError, EOFError, KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"packed section {path} cannot be read ({error}); remove it, or pack the section again"
            ) from None
        if version != VERSION:
            raise ValueError(f"packed section {path} is of version {version}, not {VERSION}; pack the section again")
        if made_from != fingerprint.of_folder(self.section_dir, FOLDERS):
            raise ValueError(
                f"packed section {path} was made from other files than {section_dir} holds now; remove it, or pack again: "
                f"python -m dataloader.packing {section_dir}"
            )

    def __reduce__(self) -> tuple:
        return PackedSection, (self.section_dir,)  # a map is opened again, its bytes do not travel

    def read(self, stem: str, task: Task) -> Stored:
        """What `read_stored` gives for the sample's files."""
        arrays = self._index[stem]
        image_HW3, K_33, pose_44, map_Chw, valid_1hw = (
            self._array(*arrays[name]) for name in ("image", "K", "pose", task.label_folder, f"{task.label_folder} valid")
        )
        return Stored(image_HW3, *map(torch.from_numpy, (K_33, pose_44, map_Chw, valid_1hw)))

    def _array(self, dtype: str, shape: list[int], start: int) -> np.ndarray:
        # A copy, as a decoded file is: the map itself must not be written to.
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return self._bytes[start : start + size].copy().view(dtype).reshape(shape)


def open_packed(section_dir: Path) -> PackedSection | None:
    """The section's packed file where there is one."""
    return PackedSection(section_dir) if (Path(section_dir) / PACKED).is_file() else None
