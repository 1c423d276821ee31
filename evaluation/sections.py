"""Names of sections that evaluation knows, among them groups of sections."""

from __future__ import annotations

from pathlib import Path

_TEST_REAL = ("val_drone_real", "test_drone_real")
_TEST_SIM = ("val_drone_sim", "val_sim", "test_drone_sim")

SECTION_GROUPS: dict[str, tuple[str, ...]] = {
    "test_real_all": _TEST_REAL,
    "real_all": (*_TEST_REAL, "train_drone_real"),
    "test_sim_all": _TEST_SIM,
    "sim_all": (*_TEST_SIM, "train_sim"),
}


def section_dirs(scene_dir: Path, section: str) -> list[Path]:
    """Folders of a section, or of all sections of a group.

    Raises:
        FileNotFoundError: the scene or one of the sections is not there; names what is.
    """
    if not scene_dir.is_dir():
        raise FileNotFoundError(f"scene folder not found: {scene_dir}")
    folders = [scene_dir / name for name in SECTION_GROUPS.get(section, (section,))]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        present = sorted(p.name for p in scene_dir.iterdir() if p.is_dir())
        raise FileNotFoundError(
            f"section {section!r}: no {', '.join(missing)} in {scene_dir}; present: {present}, "
            f"groups: {list(SECTION_GROUPS)}"
        )
    return folders
