"""Chunks of a section: `<section>_chunk_0.25` and so on, links into it, smaller ones contained in larger ones."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from pathlib import Path

from tqdm import tqdm

from datagen import sections
from datagen.benchmark.links import link
from datagen.benchmark.options import ChunkOptions
from datagen.benchmark.plan import FOLDERS
from datagen.benchmark.split import chunk
from datagen.written import check_written
from dataloader.section import stems_in

log = logging.getLogger(__name__)


def split_section(options: ChunkOptions) -> list[Path]:
    """Makes the chunks.

    Returns:
        their folders.
    Raises:
        FileNotFoundError, ValueError: no such section, an incomplete or a wrong one, or nothing would be in a chunk.
        FileExistsError: a chunk with other content is there.
    """
    section = Path(os.path.abspath(options.section_dir))
    folders = [name for name in FOLDERS if (section / name).is_dir()]
    if "rgb" not in folders:
        raise FileNotFoundError(f"no section there: {section} (it has no folder rgb)")
    files = {
        folder: stems_in(section / folder, {path.suffix.lower() for path in (section / folder).iterdir()})
        for folder in folders
    }
    stems = sorted(files["rgb"])
    for folder, found in files.items():
        if sorted(found) != stems:
            odd = sorted(set(found) ^ set(stems))
            raise ValueError(f"{section}: {len(odd)} samples are in only one of rgb and {folder}: {', '.join(odd[:3])}")
    output = options.output_dir or section.parent
    made, new = [], []
    for size in sorted(set(options.chunk_size)):
        folder = output / f"{section.name}_chunk_{size:.2f}"
        chosen = chunk(stems, size)
        if not chosen:
            raise ValueError(f"{section} has no sample to make a chunk of")
        if _is_there(folder, chosen, files, options):
            log.info("already there: %s (%d samples)", folder, len(chosen))
        else:
            _make(folder, chosen, files, options)
            log.info("wrote %s (%d of %d samples)", folder, len(chosen), len(stems))
            new.append(folder.name)
        made.append(folder)
    if new:
        check_written(output, new)
    return made


def _is_there(folder: Path, chosen: list[str], files: dict[str, dict[str, Path]], options: ChunkOptions) -> bool:
    """Whether a chunk with these samples is there; copies are made anew, since they may be of another time."""
    if not folder.exists():
        return False
    same = (
        not options.copy
        and all(
            {path.name for path in (folder / name).iterdir() if path.is_symlink()} == {found[stem].name for stem in chosen}
            and all((folder / name / found[stem].name).resolve() == found[stem].resolve() for stem in chosen)
            for name, found in files.items()
            if (folder / name).is_dir()
        )
        and all((folder / name).is_dir() for name in files)
    )
    if not same and not options.overwrite:
        raise FileExistsError(f"already there, with other content: {folder} (--overwrite replaces it)")
    return same


def _make(folder: Path, chosen: list[str], files: dict[str, dict[str, Path]], options: ChunkOptions) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = folder.with_name(f".chunk-{uuid.uuid4().hex[:8]}")
    try:
        for name, found in files.items():
            (staged / name).mkdir(parents=True)
            for stem in tqdm(chosen, desc=f"{folder.name}/{name}", unit="file", leave=False):
                link(staged / name / found[stem].name, found[stem], copy=options.copy)
        record = sections.read_section_record(options.section_dir)
        if record is not None:
            sections.write_section_record(
                staged, {**record, "settings": {"command": "chunk", "of": record["settings"]}, "images": len(chosen)}
            )
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
