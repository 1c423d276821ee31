"""Which sections a command line chooses."""

from __future__ import annotations

from pathlib import Path

from tasks import TASKS

REAL_DATA_DOMAINS = ("in_place", "out_of_place")


def scene_folder(datasets_dir: Path, scene: str, task: str, fullsize: bool) -> Path:
    """Folder of a scene's sections; full-size labels of the dense tasks live in a scene folder of their own."""
    separate = fullsize and not TASKS[task].fullsize_only
    return datasets_dir / (f"{scene}-fullsize" if separate else scene)


def _chunk_suffix(chunk: float) -> str:
    return "" if chunk == 1 else f"_chunk_{chunk:.2f}"


def training_sections(
    scene_dir: Path, *, sim_data_chunk: float, real_data_chunk: float, real_only: bool, real_data_domain: str
) -> list[Path]:
    """Section folders of a training run, synthetic LHS section first.

    Raises:
        ValueError: contradictory or out-of-range choices, or nothing chosen.
    """
    for name, chunk in (("sim_data_chunk", sim_data_chunk), ("real_data_chunk", real_data_chunk)):
        if not 0 <= chunk <= 1:
            raise ValueError(f"--{name} must lie in [0, 1], got {chunk}")
    if real_data_domain not in REAL_DATA_DOMAINS:
        raise ValueError(f"unknown real data domain {real_data_domain!r}; choose from {list(REAL_DATA_DOMAINS)}")
    if real_only and sim_data_chunk > 0:
        raise ValueError(f"--real_only needs --sim_data_chunk 0, got {sim_data_chunk}")
    sections = []
    if sim_data_chunk > 0:
        sections.append("train_sim" + _chunk_suffix(sim_data_chunk))
    if real_data_chunk > 0:
        flight = "drone" if real_data_domain == "in_place" else "oop_drone"
        domains = ("real",) if real_only else ("sim", "real")
        sections += [f"train_{flight}_{domain}{_chunk_suffix(real_data_chunk)}" for domain in domains]
    if not sections:
        raise ValueError("no training data chosen: --sim_data_chunk and --real_data_chunk are both 0")
    return [scene_dir / section for section in sections]


def is_real_section(section: str) -> bool:
    """Whether a section holds real photos."""
    return "_drone_real" in section
