"""`python -m dataloader.packing SECTION...`: puts sections into one file each, see `dataloader.packed`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataloader.packed import FOLDERS, HEADER_BYTES, LENGTH_BYTES, PACKED, VERSION, read_stored
from dataloader.section import SectionDataset
from records import fingerprint
from records.command import exit_status
from records.files import replacing
from tasks import TASKS, Task
from threads import configure_threads

_ALIGNMENT = 64


def pack(section_dir: Path) -> Path:
    """Packs a section.

    Raises:
        FileNotFoundError, ValueError: the section is incomplete or a file cannot be read; names it.
    """
    section_dir = Path(section_dir)
    if not section_dir.is_dir():
        raise FileNotFoundError(f"no such section: {section_dir}")
    tasks = [task for task in TASKS.values() if (section_dir / task.label_folder).is_dir()]
    if not tasks:
        raise ValueError(f"section {section_dir} has no labels")
    path = section_dir / PACKED
    path.unlink(missing_ok=True)
    made_from = fingerprint.of_folder(section_dir, FOLDERS)
    by_task = {name: SectionDataset([section_dir], name, 16).files for name, task in TASKS.items() if task in tasks}
    index: dict[str, dict[str, list]] = {}
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(b"\0" * HEADER_BYTES)
        samples = zip(*by_task.values(), strict=True)
        for of_tasks in tqdm(
            samples, total=len(next(iter(by_task.values()))), desc=f"packing {section_dir.name}", unit="img"
        ):
            stem = of_tasks[0].image.stem
            index[stem] = {name: _append(stream, array) for name, array in _arrays(of_tasks, tasks)}
        text = json.dumps({"version": VERSION, "made_from": made_from, "samples": index}).encode()
        stream.write(text + len(text).to_bytes(LENGTH_BYTES, "little"))
        size = stream.tell() - HEADER_BYTES
        stream.seek(0)
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
        assert stream.tell() == HEADER_BYTES
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
    place = stream.tell() - HEADER_BYTES
    stream.write(np.ascontiguousarray(array).tobytes())
    return [array.dtype.str, list(array.shape), place]


def main(arguments: list[str] | None = None) -> int:
    """Packs sections; exit status 2 with one line when something is wrong."""
    configure_threads()
    parser = argparse.ArgumentParser(prog="python -m dataloader.packing", description=__doc__.splitlines()[0])
    parser.add_argument("sections", type=Path, nargs="+", help="section folders")
    args = parser.parse_args(arguments)

    def work() -> None:
        for section in args.sections:
            path = pack(section)
            print(f"wrote {path} ({path.stat().st_size / 1e9:.2f} GB)")

    return exit_status(work, interrupted="interrupted; nothing was left behind")


if __name__ == "__main__":
    sys.exit(main())
