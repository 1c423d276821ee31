"""`python -m dataloader.packed SECTION...`: a section in one memory-mapped file, for disks on which small files are slow.

`packed.npy` lies beside the section's folders and holds, decoded, what they hold; samples read from it are the same to the
last bit. It knows the fingerprint of the files that it was made from and is refused when they changed. The file is a
one-dimensional .npy array of bytes: the samples' arrays one after the other, and their index as JSON at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataloader.images import decode_image
from dataloader.labels import read_calibration, read_label, read_pose
from records import fingerprint
from records.files import replacing
from tasks import TASKS, Task
from threads import configure_threads

PACKED = "packed.npy"
_VERSION = 1
_FOLDERS = ("rgb", "poses", "calibration", *(task.label_folder for task in TASKS.values()))
# numpy pads the header of a .npy file of one dimension to this.
_HEADER_BYTES = 128
_ALIGNMENT = 64
_LENGTH_BYTES = 8


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
            length = int(self._bytes[-_LENGTH_BYTES:].copy().view(np.uint64)[0])
            index = json.loads(self._bytes[-_LENGTH_BYTES - length : -_LENGTH_BYTES].tobytes())
            version, made_from, self._index = index["version"], index["made_from"], index["samples"]
        except (ValueError, OSError, EOFError, KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"packed section {path} cannot be read ({error}); remove it, or pack the section again"
            ) from None
        if version != _VERSION:
            raise ValueError(f"packed section {path} is of version {version}, not {_VERSION}; pack the section again")
        if made_from != fingerprint.of_folder(self.section_dir, _FOLDERS):
            raise ValueError(
                f"packed section {path} was made from other files than {section_dir} holds now; remove it, or pack again: "
                f"python -m dataloader.packed {section_dir}"
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


def pack(section_dir: Path) -> Path:
    """Packs a section.

    Raises:
        FileNotFoundError, ValueError: the section is incomplete or a file cannot be read; names it.
    """
    from dataloader.section import SectionDataset  # which reads packed sections itself

    section_dir = Path(section_dir)
    if not section_dir.is_dir():
        raise FileNotFoundError(f"no such section: {section_dir}")
    tasks = [task for task in TASKS.values() if (section_dir / task.label_folder).is_dir()]
    if not tasks:
        raise ValueError(f"section {section_dir} has no labels")
    path = section_dir / PACKED
    path.unlink(missing_ok=True)
    made_from = fingerprint.of_folder(section_dir, _FOLDERS)
    by_task = {name: SectionDataset([section_dir], name, 16).files for name, task in TASKS.items() if task in tasks}
    index: dict[str, dict[str, list]] = {}
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(b"\0" * _HEADER_BYTES)
        samples = zip(*by_task.values(), strict=True)
        for of_tasks in tqdm(
            samples, total=len(next(iter(by_task.values()))), desc=f"packing {section_dir.name}", unit="img"
        ):
            stem = of_tasks[0].image.stem
            index[stem] = {name: _append(stream, array) for name, array in _arrays(of_tasks, tasks)}
        text = json.dumps({"version": _VERSION, "made_from": made_from, "samples": index}).encode()
        stream.write(text + np.uint64(len(text)).tobytes())
        size = stream.tell() - _HEADER_BYTES
        stream.seek(0)
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
        assert stream.tell() == _HEADER_BYTES
    return path


def _arrays(of_tasks: tuple, tasks: list[Task]) -> Iterator[tuple[str, np.ndarray]]:
    for number, (files, task) in enumerate(zip(of_tasks, tasks, strict=True)):
        stored = read_stored(files.image, files.pose, files.calibration, files.label, task)
        if number == 0:
            yield "image", stored.image_HW3
            yield "K", stored.K_33.numpy()
            yield "pose", stored.world_from_cam_44.numpy()
        yield task.label_folder, stored.map_Chw.numpy()
        yield f"{task.label_folder} valid", stored.valid_1hw.numpy()


def _append(stream, array: np.ndarray) -> list:
    """Type, shape and place of an array after writing it."""
    stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
    place = stream.tell() - _HEADER_BYTES
    stream.write(np.ascontiguousarray(array).tobytes())
    return [array.dtype.str, list(array.shape), place]


def main(arguments: list[str] | None = None) -> int:
    """Packs sections; exit status 2 with one line when something is wrong."""
    configure_threads()
    parser = argparse.ArgumentParser(prog="python -m dataloader.packed", description=__doc__.splitlines()[0])
    parser.add_argument("sections", type=Path, nargs="+", help="section folders")
    args = parser.parse_args(arguments)
    try:
        for section in args.sections:
            path = pack(section)
            print(f"wrote {path} ({path.stat().st_size / 1e9:.2f} GB)")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
