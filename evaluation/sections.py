"""Names of sections that evaluation knows: those that follow from a run, and groups."""

from __future__ import annotations

from pathlib import Path

from runs.search import Run

_TEST_REAL = ("val_drone_real", "test_drone_real")
_TEST_SIM = ("val_drone_sim", "val_sim", "test_drone_sim")

SECTION_GROUPS: dict[str, tuple[str, ...]] = {
    "test_real_all": _TEST_REAL,
    "real_all": (*_TEST_REAL, "train_drone_real"),
    "test_sim_all": _TEST_SIM,
    "sim_all": (*_TEST_SIM, "train_sim"),
}

# What was trained on (the domain of the photos, or sim_only) -> the section that plays the role.
SECTION_ROLES: dict[str, dict[str, str]] = {
    "validation": {"sim_only": "val_sim", "in_place": "val_drone_real", "out_of_place": "val_oop_drone_real"},
    "test": {"in_place": "test_drone_real", "out_of_place": "test_oop_drone_real"},
}


def section_for(section: str, run: Run | None, weights: Path) -> str:
    """The section that a name means for a run: `validation` and `test` follow from what it was trained on.

    Raises:
        ValueError: nothing says what the run is, or it has no section of that role.
    """
    if section not in SECTION_ROLES:
        return section
    if run is None:
        raise ValueError(f"nothing says what run {weights} is of, so it has no {section} section; name the section itself")
    trained_on = "sim_only" if run.kind == "sim_only" else run.domain
    roles = SECTION_ROLES[section]
    if trained_on not in roles:
        raise ValueError(
            f"{weights} was trained on {trained_on} data, which has no {section} section of its own; name the section itself"
        )
    return roles[trained_on]


def section_dirs(scene_dir: Path, section: str) -> list[Path]:
    """Folders of a section, or of all sections of a group.

    Raises:
        FileNotFoundError: the scene or one of the sections is not there; names what is.
    """
    if not scene_dir.is_dir():
        fullsize = scene_dir.with_name(f"{scene_dir.name}-fullsize")
        hint = f"; there is {fullsize.name}: name that as the scene" if fullsize.is_dir() else ""
        raise FileNotFoundError(f"scene folder not found: {scene_dir}{hint}")
    folders = [scene_dir / name for name in SECTION_GROUPS.get(section, (section,))]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        present = sorted(p.name for p in scene_dir.iterdir() if p.is_dir())
        raise FileNotFoundError(
            f"section {section!r}: no {', '.join(missing)} in {scene_dir}; present: {present}, "
            f"groups: {list(SECTION_GROUPS)}"
        )
    return folders
