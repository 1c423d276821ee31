"""What is made already, and from what: the set-up's record, its journal, and the hidden folder in which it works."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datagen import sections
from datagen.benchmark.links import put
from datagen.benchmark.options import SetupOptions
from datagen.benchmark.plan import MERGED, TRAIN_SIM, Job, folders_of, section_names
from records import fingerprint
from records.files import read_json, write_json

RECORD, _VERSION = "setup.json", 1
WORK, _JOURNAL = ".setup", "journal.jsonl"


def finished_samples(output: Path, settings: dict, names: list[str], overwrite: bool) -> dict[str, dict]:
    """Inputs of every sample that is made already, by key; sections that may not stay are removed.

    Raises:
        FileExistsError: sections were made otherwise and overwriting was not asked for.
    """
    work = output / WORK
    if (work / _JOURNAL).is_file():
        found, done = _read_journal(work / _JOURNAL)
        if found == settings:
            return done
        if not overwrite:
            raise FileExistsError(f"{output} holds an unfinished set-up {_other(found, settings)} (--overwrite removes it)")
        shutil.rmtree(work)
    existing = [name for name in names if (output / name).exists()]
    record = read_json(output / RECORD, "set-up record") if (output / RECORD).is_file() else None
    if record is not None and record.get("version") == _VERSION and record["settings"] == settings:
        return record["samples"]
    if existing and not overwrite:
        how = "by hand or by another program"
        if record is not None:
            how = _other(record.get("settings"), settings)
        raise FileExistsError(f"{output} holds sections that were made {how} (--overwrite replaces them)")
    for name in existing:
        shutil.rmtree(output / name)
    (output / RECORD).unlink(missing_ok=True)
    return {}


def _other(before: dict | None, settings: dict) -> str:
    before = before or {}
    changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    return "with other options: " + ", ".join(f"{key} {before.get(key)}" for key in changed)


def has_moved(jobs: list[Job], done: dict[str, dict]) -> bool:
    """Whether finished samples are no longer wanted, or wanted in another section (by another split record)."""
    section_of = {job.key: job.section for job in jobs}
    return any(section_of.get(key) != inputs["section"] for key, inputs in done.items())


def remove_all(output: Path) -> dict[str, dict]:
    """Removes all that was made; nothing is finished then."""
    for folder in (output, output / WORK):
        for section in [path for path in folder.iterdir() if path.is_dir() and _is_ours(path)] if folder.is_dir() else ():
            shutil.rmtree(section)
    shutil.rmtree(output / WORK, ignore_errors=True)
    (output / RECORD).unlink(missing_ok=True)
    return {}


def is_whole(output: Path, jobs: list[Job], options: SetupOptions) -> bool:
    """Whether every section holds as many files as it should."""
    wanted = Counter(job.section for job in jobs)
    wanted |= {
        merged: wanted[other] + wanted[TRAIN_SIM] for merged, other in MERGED.items() if merged in section_names(jobs)
    }
    places = [(output / section / folder, count) for section, count in wanted.items() for folder in folders_of(options)]
    return all(place.is_dir() and sum(1 for _ in place.iterdir()) == count for place, count in places)


def _read_journal(path: Path) -> tuple[dict | None, dict[str, dict]]:
    """Settings and finished samples; a line that a kill cut short counts for nothing."""
    settings, done = None, {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if "settings" in entry:
            settings = entry["settings"]
        else:
            done[entry["key"]] = entry["inputs"]
    return settings, done


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def recorded_inputs(job: Job, copy: bool) -> dict:
    """What a sample was made from: size and date of each file, digests of what was read into it, and the pose."""
    return {
        "section": job.section,
        "pose": fingerprint.of_value(job.sample.pose_6.tolist()),
        **{
            name: [*_state(path), fingerprint.of_file(path) if _is_content(name, copy) else ""]
            for name, path in job.inputs(copy).items()
        },
    }


def _is_content(name: str, copy: bool) -> bool:
    # Of linked images the link always shows today's content.
    return copy or name in ("points", "classes")


def is_as_recorded(job: Job, known: dict, copy: bool) -> bool:
    """Whether a sample would come out the same: unchanged size and date, or another date and the same content."""
    files = job.inputs(copy)
    if set(known) != {"section", "pose", *files} or known["pose"] != fingerprint.of_value(job.sample.pose_6.tolist()):
        return False
    for name, path in files.items():
        size, date, digest = known[name]
        if [size, date] != _state(path) and (not digest or digest != fingerprint.of_file(path)):
            return False
    return True


@dataclass
class Workshop:
    """The hidden folder where sections are made. Attributes: done: finished samples, the journal's content."""

    output: Path
    folder: Path
    done: dict[str, dict]
    lock: threading.Lock

    def finish(self, key: str, inputs: dict) -> None:
        """Notes a sample as finished; from any thread."""
        with self.lock:
            self.done[key] = inputs
            with (self.folder / _JOURNAL).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": key, "inputs": inputs}) + "\n")


@contextmanager
def workshop(output: Path, settings: dict, done: dict[str, dict]) -> Iterator[Workshop]:
    """Moves what is made already into the hidden folder, and everything out of it at the end."""
    folder = output / WORK
    folder.mkdir(exist_ok=True)
    shop = Workshop(output, folder, dict(done), threading.Lock())
    lines = [{"settings": settings}, *({"key": key, "inputs": inputs} for key, inputs in done.items())]
    put(
        folder / _JOURNAL, lambda path: path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    )
    (output / RECORD).unlink(missing_ok=True)
    for section in sorted(path for path in output.iterdir() if path.is_dir() and _is_ours(path)):
        os.replace(section, folder / section.name)
    yield shop
    for section in sorted(path for path in folder.iterdir() if path.is_dir()):
        os.replace(section, output / section.name)
    write_json(output / RECORD, {"version": _VERSION, "settings": settings, "samples": shop.done})
    shutil.rmtree(folder)


def _is_ours(section: Path) -> bool:
    """Whether the set-up made a section (chunks and sections of other commands stay where they are)."""
    path = section / sections.SECTION_RECORD
    return path.is_file() and str(read_json(path, "section record").get("settings", {}).get("command")).startswith("setup_")
