"""Raw benchmark to sections: in parallel, to be continued after a kill, and made again where the input changed.

While it works, all sections lie in a hidden folder of the scene, together with a journal of the finished samples; they come
out together when all is done. What was made from what stays in `setup.json`.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from datagen import sections
from datagen.benchmark import samples
from datagen.benchmark.geocentric import SCENES, BenchmarkScene
from datagen.benchmark.links import link
from datagen.benchmark.options import SetupOptions
from datagen.benchmark.plan import MERGED, TRAIN_SIM, Job, folders_of, plan, section_names
from datagen.benchmark.progress import (
    RECORD,
    WORK,
    Workshop,
    finished_samples,
    has_moved,
    is_as_recorded,
    is_whole,
    recorded_inputs,
    remove_all,
    workshop,
)
from datagen.benchmark.raw import read_raw
from datagen.benchmark.split import record_path, splits
from datagen.provenance import section_record
from datagen.written import check_written
from records import fingerprint
from records.files import exclusive, write_json
from records.options import deciding
from tasks import CLASS_NAMES, LAS_CODE_TO_CLASS

log = logging.getLogger(__name__)


def set_up(scene_name: str, options: SetupOptions, record_dir: Path) -> None:
    """Makes or completes all sections of a benchmark scene.

    Args:
        record_dir: where split records are obeyed, and written when absent.
    Raises:
        FileNotFoundError, ValueError: the raw data are incomplete or contradict a split record, or what was made of them
            does not fit together; names what.
        FileExistsError: sections are there that were made otherwise.
        BlockingIOError: another set-up is at work in the folder.
    """
    scene, output = SCENES[scene_name], options.output_dir
    raw = read_raw(
        options.dataset_dir / (options.lhs_dir or f"{scene_name}-LHS"), options.dataset_dir / options.matching_dir
    )
    parts = splits({mode: [sample.stem for sample in found] for mode, found in raw.items()}, scene_name, record_dir)
    jobs = plan(raw, parts)
    settings = {"command": f"setup_{scene_name}", "scene": scene_name, **deciding(options)}
    output.mkdir(parents=True, exist_ok=True)
    with exclusive(output / RECORD, f"another set-up is at work in {output}"):
        done = finished_samples(output, settings, section_names(jobs), options.overwrite)
        if has_moved(jobs, done):
            log.info("samples were removed from the raw data or moved to other sections: all are made again")
            done = remove_all(output)
        stale = [job for job in jobs if job.key not in done or not is_as_recorded(job, done[job.key], options.copy)]
        if not stale and not (output / WORK).exists():
            if is_whole(output, jobs, options):
                log.info("already there, from the same input with the same options: %s", output)
                return
            log.info("files are missing in %s: all samples are made again", output)
            done, stale = remove_all(output), jobs
        if made_again := [job.key for job in stale if job.key in done]:
            log.info("made again because their input changed: %s", _named(made_again))
        with workshop(output, settings, done) as shop:
            _make(scene, options, stale, shop)
            _merge(options, jobs, shop)
            _write_records(scene, settings, jobs, shop, parts, record_dir)
    said = "" if output.name.startswith(scene_name) else f" (training looks for a folder called {scene_name})"
    log.info("wrote %d sections with %d samples to %s%s", len(section_names(jobs)), len(jobs), output, said)
    check_written(output, section_names(jobs))


def _make(scene: BenchmarkScene, options: SetupOptions, jobs: list[Job], shop: Workshop) -> None:
    """Makes samples in threads; each render before its photo, whose labels are the render's."""
    for section in {job.section for job in jobs}:
        for folder in folders_of(options):
            (shop.folder / section / folder).mkdir(parents=True, exist_ok=True)
    of_render: dict[Path, list[Job]] = {}
    for job in jobs:
        of_render.setdefault(job.sample.image, []).append(job)

    def make(render_and_photo: list[Job]) -> None:
        for job in render_and_photo:
            # Before the work: what changes meanwhile is made again next time.
            inputs = recorded_inputs(job, options.copy)
            if job.render_section is None:
                samples.write_render(scene, options, job, shop)
            else:
                samples.write_photo(options, job, shop)
            shop.finish(job.key, inputs)

    if jobs:
        sections.for_each(list(of_render.values()), make, workers=options.workers, description=scene.name)


def _merge(options: SetupOptions, jobs: list[Job], shop: Workshop) -> None:
    """Sections that join two others, as links into them."""
    names = {job.section for job in jobs}
    for merged, other in MERGED.items():
        if not {other, TRAIN_SIM} <= names:
            continue
        shutil.rmtree(shop.folder / merged, ignore_errors=True)
        for folder in folders_of(options):
            place = shop.folder / merged / folder
            place.mkdir(parents=True)
            for source in (TRAIN_SIM, other):
                for path in sorted((shop.folder / source / folder).iterdir()):
                    if (place / path.name).is_symlink() or (place / path.name).exists():
                        raise ValueError(f"{TRAIN_SIM} and {other} both have a sample called {path.stem}")
                    link(place / path.name, path, copy=options.copy)


def _write_records(
    scene: BenchmarkScene, settings: dict, jobs: list[Job], shop: Workshop, parts: dict, record_dir: Path
) -> None:
    frame = scene.frame()
    for section in section_names(jobs):
        folder = shop.folder / section
        keys = sorted(job.key for job in jobs if job.section == section)
        # Dates say nothing about a content.
        raw = {key: {name: v[-1] if isinstance(v, list) else v for name, v in shop.done[key].items()} for key in keys}
        inputs = {"raw": {"files": [], "fingerprint": fingerprint.of_value(raw)}}
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
