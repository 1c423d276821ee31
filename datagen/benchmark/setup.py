"""Raw benchmark to sections: in parallel, to be continued after a kill, and made again where the input changed.

While it works, all sections lie in a hidden folder of the scene, together with a journal of the finished samples; they come
out together when all is done. What was made from what stays in `setup.json`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from datagen import sections
from datagen.benchmark import labels
from datagen.benchmark.geocentric import SCENES, BenchmarkScene, world_from_camera
from datagen.benchmark.links import link, put
from datagen.benchmark.options import SetupOptions
from datagen.benchmark.raw import LHS, RawSample, read_raw
from datagen.benchmark.split import record_path, splits
from datagen.provenance import section_record
from dataloader.images import read_header
from geometry.grid import NODATA, STRIDE
from records import fingerprint
from records.files import exclusive, read_json, write_json
from records.options import deciding
from tasks import CLASS_NAMES, LAS_CODE_TO_CLASS

log = logging.getLogger(__name__)

RECORD, _VERSION = "setup.json", 1
_WORK, _JOURNAL = ".setup", "journal.jsonl"
_LABELS_3D = ("init", "depth", "normal")
FOLDERS = ("rgb", "poses", "calibration", *_LABELS_3D, "semantics")
# Sections that join two others.
_MERGED = {"train_sim_plus_drone_sim": "train_drone_sim", "train_sim_plus_oop_drone_sim": "train_oop_drone_sim"}
_TRAIN_SIM = "train_sim"
# Width and height of a photo may differ from its render's by such a share in their ratio.
_SAME_SHAPE = 0.01


@dataclass(frozen=True)
class Job:
    """One sample of one section. Attributes: key: mode and stem. render_section: of a photo, where its labels lie."""

    key: str
    section: str
    sample: RawSample
    render_section: str | None = None

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that it is made from."""
        files = {"image": self.sample.image, "points": self.sample.points, "classes": self.sample.classes}
        return {"photo": self.sample.photo, "render": self.sample.image} if self.render_section else files


def set_up(scene_name: str, options: SetupOptions, record_dir: Path) -> None:
    """Makes or completes all sections of a benchmark scene.

    Args:
        record_dir: where split records are obeyed, and written when absent.
    Raises:
        FileNotFoundError, ValueError: the raw data are incomplete or contradict a split record; names what.
        FileExistsError: sections are there that were made otherwise.
        BlockingIOError: another set-up is at work in the folder.
    """
    scene, output = SCENES[scene_name], options.output_dir
    raw = read_raw(
        options.dataset_dir / (options.lhs_dir or f"{scene_name}-LHS"), options.dataset_dir / options.matching_dir
    )
    parts = splits({mode: [s.stem for s in samples] for mode, samples in raw.items()}, scene_name, record_dir)
    jobs = plan(raw, parts)
    settings = {"command": f"setup_{scene_name}", "scene": scene_name, **deciding(options)}
    output.mkdir(parents=True, exist_ok=True)
    with exclusive(output / RECORD, f"another set-up is at work in {output}"):
        done = _finished(output, settings, _section_names(jobs), options.overwrite)
        if _has_moved(jobs, done):
            log.info("samples were removed from the raw data or moved to other sections: all are made again")
            done = _removed(output)
        stale = [job for job in jobs if job.key not in done or not _is_as_recorded(job, done[job.key], options.copy)]
        if not stale and not (output / _WORK).exists():
            if _is_whole(output, jobs, options):
                log.info("already there, from the same input with the same options: %s", output)
                return
            log.info("files are missing in %s: all samples are made again", output)
            done, stale = _removed(output), jobs
        if made_again := [job.key for job in stale if job.key in done]:
            log.info("made again because their input changed: %s", _named(made_again))
        with _workshop(output, settings, done) as shop:
            _make(scene, options, stale, shop)
            _merge(options, jobs, shop)
            _write_records(scene, settings, jobs, shop, parts, record_dir)
    said = "" if output.name.startswith(scene_name) else f" (training looks for a folder called {scene_name})"
    log.info("wrote %d sections with %d samples to %s%s", len(_section_names(jobs)), len(jobs), output, said)


def plan(raw: dict[str, list[RawSample]], parts: dict[str, dict[str, list[str]]]) -> list[Job]:
    """All samples with their sections, renders before the photos whose labels link to theirs."""
    renders, photos = [], []
    for mode, samples in raw.items():
        part_of = {stem: part for part, stems in parts[mode].items() for stem in stems}
        for sample in samples:
            part = part_of[sample.stem]
            if mode == LHS:
                renders.append(Job(f"{mode}/{sample.stem}", f"{part}_sim", sample))
            else:
                section = f"{part}_{mode}_sim"
                renders.append(Job(f"{mode}_sim/{sample.stem}", section, sample))
                photos.append(Job(f"{mode}_real/{sample.stem}", f"{part}_{mode}_real", sample, section))
    return renders + photos


def _section_names(jobs: list[Job]) -> list[str]:
    names = dict.fromkeys(job.section for job in jobs)
    return [*names, *(name for name, other in _MERGED.items() if {other, _TRAIN_SIM} <= set(names))]


# --- what was made from what -------------------------------------------------------------------------------------------


def _finished(output: Path, settings: dict, names: list[str], overwrite: bool) -> dict[str, dict]:
    """Inputs of every sample that is made already, by key; sections that may not stay are removed.

    Raises:
        FileExistsError: sections were made otherwise and overwriting was not asked for.
    """
    work = output / _WORK
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


def _has_moved(jobs: list[Job], done: dict[str, dict]) -> bool:
    """Whether finished samples are no longer wanted, or wanted in another section (by another split record)."""
    section_of = {job.key: job.section for job in jobs}
    return any(section_of.get(key) != inputs["section"] for key, inputs in done.items())


def _removed(output: Path) -> dict[str, dict]:
    """Removes all that was made; nothing is finished then."""
    for folder in (output, output / _WORK):
        for section in [path for path in folder.iterdir() if path.is_dir() and _is_ours(path)] if folder.is_dir() else ():
            shutil.rmtree(section)
    shutil.rmtree(output / _WORK, ignore_errors=True)
    (output / RECORD).unlink(missing_ok=True)
    return {}


def _is_whole(output: Path, jobs: list[Job], options: SetupOptions) -> bool:
    """Whether every section holds as many files as it should."""
    wanted = Counter(job.section for job in jobs)
    wanted |= {
        merged: wanted[other] + wanted[_TRAIN_SIM] for merged, other in _MERGED.items() if merged in _section_names(jobs)
    }
    places = [(output / section / folder, count) for section, count in wanted.items() for folder in _folders(options)]
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


def _recorded(job: Job, copy: bool) -> dict:
    """What a sample was made from: size and date of each file, digests of what was read into it, and the pose."""
    return {
        "section": job.section,
        "pose": fingerprint.of_value(job.sample.pose_6.tolist()),
        **{
            name: [*_state(path), fingerprint.of_file(path) if _is_content(name, copy) else ""]
            for name, path in job.inputs.items()
        },
    }


def _is_content(name: str, copy: bool) -> bool:
    # Of linked images the link always shows today's content.
    return copy or name in ("points", "classes")


def _is_as_recorded(job: Job, known: dict, copy: bool) -> bool:
    """Whether a sample would come out the same: unchanged size and date, or another date and the same content."""
    if known["pose"] != fingerprint.of_value(job.sample.pose_6.tolist()) or set(known) != {"section", "pose", *job.inputs}:
        return False
    for name, path in job.inputs.items():
        size, date, digest = known[name]
        if [size, date] != _state(path) and (not digest or digest != fingerprint.of_file(path)):
            return False
    return True


# --- where it is made --------------------------------------------------------------------------------------------------


@dataclass
class _Shop:
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
def _workshop(output: Path, settings: dict, done: dict[str, dict]) -> Iterator[_Shop]:
    """Moves what is made already into the hidden folder, and everything out of it at the end."""
    folder = output / _WORK
    folder.mkdir(exist_ok=True)
    shop = _Shop(output, folder, dict(done), threading.Lock())
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


# --- samples -----------------------------------------------------------------------------------------------------------


def _make(scene: BenchmarkScene, options: SetupOptions, jobs: list[Job], shop: _Shop) -> None:
    # A photo's labels link to its render's, which must not be of another time.
    for section in {job.section for job in jobs}:
        for folder in _folders(options):
            (shop.folder / section / folder).mkdir(parents=True, exist_ok=True)

    def make(job: Job) -> None:
        # Before the work: what changes meanwhile is made again next time.
        inputs = _recorded(job, options.copy)
        (_photo if job.render_section else partial(_render, scene))(options, job, shop)
        shop.finish(job.key, inputs)

    for group in (False, True):
        chosen = [job for job in jobs if (job.render_section is not None) == group]
        if chosen:
            sections.for_each(
                chosen, make, workers=options.workers, description=f"{scene.name} {'photos' if group else 'renders'}"
            )


def _folders(options: SetupOptions) -> list[str]:
    return [name for name in FOLDERS if not (options.ignore_3d_label and name in _LABELS_3D)]


def _render(scene: BenchmarkScene, options: SetupOptions, job: Job, shop: _Shop) -> None:
    """Writes everything of a render's sample."""
    sample, section = job.sample, shop.folder / job.section
    pose_44 = world_from_camera(sample.pose_6[:3], sample.pose_6[3:], scene)
    points_HW3 = _load(sample.points, 3)
    codes_HW = _load(sample.classes, 2)
    header = read_header(sample.image)
    if not points_HW3.shape[:2] == codes_HW.shape == (header.height, header.width):
        raise ValueError(
            f"{sample.image} is {header.width} x {header.height} px, its points are {list(points_HW3.shape)} and its "
            f"classes {list(codes_HW.shape)}"
        )
    _link_image(options, shop, job, sample.image)
    _write_text(section / "poses" / f"{sample.stem}.txt", lambda stream: np.savetxt(stream, pose_44))
    stride = _image_stride(options)
    calibration = labels.calibration_text(header.width, header.width, header.height, stride)
    _write_text(section / "calibration" / f"{sample.stem}.txt", lambda stream: stream.write(calibration.encode()))
    _write_classes(options, job, codes_HW, shop)
    if not options.ignore_3d_label:
        _write_labels(scene, options, points_HW3, pose_44, section, sample.stem)


def _image_stride(options: SetupOptions) -> int:
    """Pixels per cell of the labels that the calibration is for; class maps do not mind half a pixel."""
    return STRIDE if options.ignore_3d_label else options.stride


def _write_labels(
    scene: BenchmarkScene, options: SetupOptions, points_HW3: np.ndarray, pose_44: np.ndarray, section: Path, stem: str
) -> None:
    coords_3hw = labels.scene_coordinates(labels.on_grid(points_HW3, options.stride), scene.origin_3)
    p_cam_3hw = labels.camera_points(coords_3hw, pose_44)
    valid_hw = ~(coords_3hw == NODATA).any(0)
    made = {
        "init": coords_3hw,
        "depth": labels.depths(coords_3hw, p_cam_3hw),
        "normal": labels.normals(coords_3hw, p_cam_3hw),
    }
    for folder, label in made.items():
        tensor = torch.from_numpy(np.ascontiguousarray(labels.stored(label, valid_hw)))
        # Through memory: torch.save writes the name of its file into it, which is a hidden one here.
        buffer = io.BytesIO()
        torch.save(tensor, buffer)
        put(section / folder / f"{stem}.dat", lambda path, buffer=buffer: path.write_bytes(buffer.getbuffer()))


def _write_classes(options: SetupOptions, job: Job, codes_HW: np.ndarray, shop: _Shop) -> None:
    sample = job.sample
    unknown = sorted(set(np.unique(codes_HW).tolist()) - set(LAS_CODE_TO_CLASS))
    if unknown:
        raise ValueError(f"{sample.classes}: LAS codes {unknown} have no class; known are {sorted(LAS_CODE_TO_CLASS)}")
    path = shop.folder / job.section / "semantics" / f"{sample.stem}.npy"
    if codes_HW.dtype == np.uint8 and not options.force_semantics_downsampling:
        link(path, sample.classes, copy=options.copy, seen_from=shop.output / job.section / "semantics")
        return
    chosen_hw = labels.on_grid(codes_HW, options.stride) if options.force_semantics_downsampling else codes_HW
    put(path, partial(_save_array, np.ascontiguousarray(chosen_hw.astype(np.uint8))))


def _photo(options: SetupOptions, job: Job, shop: _Shop) -> None:
    """A photo's sample: everything but the image is its render's."""
    sample = job.sample
    render, photo = read_header(sample.image), read_header(sample.photo)
    ratio = (photo.width / photo.height) / (render.width / render.height)
    if abs(ratio - 1) > _SAME_SHAPE:
        raise ValueError(
            f"{sample.photo} is {photo.width} x {photo.height} px, not of the shape of its render, {render.width} x "
            f"{render.height} px"
        )
    _link_image(options, shop, job, sample.photo)
    larger = (photo.width, photo.height) != (render.width, render.height)
    for folder in _folders(options):
        if folder == "rgb" or (folder == "calibration" and larger):
            continue
        name = f"{sample.stem}{ {'poses': '.txt', 'calibration': '.txt', 'semantics': '.npy'}.get(folder, '.dat') }"
        link(
            shop.folder / job.section / folder / name,
            shop.folder / job.render_section / folder / name,
            copy=options.copy,
        )
    if larger:
        text = labels.calibration_text(render.width, photo.width, photo.height, _image_stride(options))
        path = shop.folder / job.section / "calibration" / f"{sample.stem}.txt"
        _write_text(path, lambda stream: stream.write(text.encode()))


def _link_image(options: SetupOptions, shop: _Shop, job: Job, image: Path) -> None:
    """The image under the sample's name; a JPG too is called .png, images are decoded by content."""
    name = f"{job.sample.stem}.png"
    link(shop.folder / job.section / "rgb" / name, image, copy=options.copy, seen_from=shop.output / job.section / "rgb")


def _load(path: Path, dimensions: int) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None
    if found.ndim != dimensions or (dimensions == 3 and found.shape[2] != 3):
        raise ValueError(f"{path} must have shape [{'H, W, 3' if dimensions == 3 else 'H, W'}], found {list(found.shape)}")
    if not np.isfinite(found).all():
        raise ValueError(f"{path} holds NaN or infinite values")
    return found


def _write_text(path: Path, write: Callable) -> None:
    def written(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            write(stream)

    put(path, written)


def _save_array(array: np.ndarray, path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, array)


# --- what joins samples ------------------------------------------------------------------------------------------------


def _merge(options: SetupOptions, jobs: list[Job], shop: _Shop) -> None:
    """Sections that join two others, as links into them."""
    names = {job.section for job in jobs}
    for merged, other in _MERGED.items():
        if not {other, _TRAIN_SIM} <= names:
            continue
        shutil.rmtree(shop.folder / merged, ignore_errors=True)
        for folder in _folders(options):
            place = shop.folder / merged / folder
            place.mkdir(parents=True)
            for source in (_TRAIN_SIM, other):
                for path in sorted((shop.folder / source / folder).iterdir()):
                    if (place / path.name).is_symlink() or (place / path.name).exists():
                        raise ValueError(f"{_TRAIN_SIM} and {other} both have a sample called {path.stem}")
                    link(place / path.name, path, copy=options.copy)


def _write_records(
    scene: BenchmarkScene, settings: dict, jobs: list[Job], shop: _Shop, parts: dict, record_dir: Path
) -> None:
    frame = scene.frame()
    for section in _section_names(jobs):
        folder = shop.folder / section
        keys = sorted(job.key for job in jobs if job.section == section)
        inputs = {"raw": {"files": [], "fingerprint": fingerprint.of_value([[k, shop.done[k]["pose"]] for k in keys])}}
        images = sum(1 for _ in (folder / "rgb").iterdir())
        sections.write_section_record(folder, section_record(settings, inputs, frame, images=images))
    write_json(
        shop.output / sections.SCENE_RECORD,
        {
            "version": sections.SCENE_RECORD_VERSION,
            **frame,
            "convention": "world = EPSG:4978 coordinates (Earth-centred) - origin_xyz, metres",
            "classes": {str(code): CLASS_NAMES[index] for code, index in LAS_CODE_TO_CLASS.items()},
            "splits": {mode: record_path(record_dir, scene.name, mode).name for mode in parts},
        },
    )


def _named(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(sorted(names)[:3])}{' ...' if len(names) > 3 else ''})"
