"""Options of the set-up commands: the published ones, and what was added."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from geometry.grid import STRIDE, STRIDES
from records.options import between, option, positive


def _known_stride(name: str, value: int) -> None:
    if value not in STRIDES:
        raise ValueError(f"{name} must be one of {sorted(STRIDES)}, got {value}")


@dataclass(frozen=True)
class SetupOptions:
    """From a raw data set to the sections of a scene."""

    dataset_dir: Path = option(decides=False, help="folder of the raw data set")
    output_dir: Path = option(decides=False, help="the scene's folder, in which the sections are made, such as ./urbanscape")
    lhs_dir: str | None = option(
        None, decides=False, help="Latin-hypercube renders, in the raw data set's folder (default: SCENE-LHS)"
    )
    matching_dir: str = option("matching/", decides=False, help="flights, in the raw data set's folder")
    stride: int = option(
        STRIDE,
        check=_known_stride,
        help="pixels per label cell: 8, or 1 for full-size labels in ./SCENE-fullsize",
    )
    force_semantics_downsampling: bool = option(False, help="class maps on the label grid too, not at full size")
    ignore_3d_label: bool = option(False, help="no coordinates, depths and normals")
    copy: bool = option(False, help="copy what is linked otherwise (file systems without links; data that are moved)")
    overwrite: bool = option(False, decides=False, help="replace sections that were made with other options")
    workers: int = option(os.cpu_count() or 1, decides=False, check=positive, help="samples that are made at once")
    record_dir: Path | None = option(
        None, decides=False, help="folder of the split records, which all outputs share (default: beside the command)"
    )


@dataclass(frozen=True)
class ChunkOptions:
    """Parts of a section that are contained in each other."""

    section_dir: Path = option(decides=False, help="a section's folder")
    output_dir: Path | None = option(None, decides=False, help="where the chunks go (default: beside the section)")
    chunk_size: tuple[float, ...] = option(
        (0.25, 0.5, 0.75), check=between(1e-6, 1.0), help="shares of the section's samples"
    )
    copy: bool = option(False, help="copy instead of linking")
    overwrite: bool = option(False, decides=False, help="replace chunks that are there")
