"""Geodata or photos in, sections out: rendering, view sampling, labels."""

from datagen.cameras import Camera, centred_intrinsics
from datagen.render import Renderer, View
from datagen.scene import GeoScene
from datagen.sections import write_sample, write_scene_record, write_section
from datagen.splits import split_stems
from datagen.staging import new_sections

__all__ = [
    "Camera",
    "GeoScene",
    "Renderer",
    "View",
    "centred_intrinsics",
    "new_sections",
    "split_stems",
    "write_sample",
    "write_scene_record",
    "write_section",
]
