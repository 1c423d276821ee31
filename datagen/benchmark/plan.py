"""Which samples a set-up makes, and where they go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datagen.benchmark.options import SetupOptions
from datagen.benchmark.raw import LHS, RawSample

_LABELS_3D = ("init", "depth", "normal")
FOLDERS = ("rgb", "poses", "calibration", *_LABELS_3D, "semantics")
# Sections that join two others.
MERGED = {"train_sim_plus_drone_sim": "train_drone_sim", "train_sim_plus_oop_drone_sim": "train_oop_drone_sim"}
TRAIN_SIM = "train_sim"


@dataclass(frozen=True)
class Job:
    """One sample of one section. Attributes: key: mode and stem. render_section: of a photo, where its labels lie."""

    key: str
    section: str
    sample: RawSample
    render_section: str | None = None

    def inputs(self, copy: bool) -> dict[str, Path]:
        """The files that it is made from; labels of a photo that are links follow their render's by themselves."""
        labels = {"points": self.sample.points, "classes": self.sample.classes}
        if self.render_section is None:
            return {"image": self.sample.image, **labels}
        return {"photo": self.sample.photo, "render": self.sample.image, **(labels if copy else {})}


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


def section_names(jobs: list[Job]) -> list[str]:
    """All sections, those that join two others last."""
    names = dict.fromkeys(job.section for job in jobs)
    return [*names, *(name for name, other in MERGED.items() if {other, TRAIN_SIM} <= set(names))]


def folders_of(options: SetupOptions) -> list[str]:
    """The folders of every section."""
    return [name for name in FOLDERS if not (options.ignore_3d_label and name in _LABELS_3D)]
