"""Which samples there are: sections below a folder, files of one stem, and what has no counterpart."""

from __future__ import annotations

from pathlib import Path

from dataloader.check.finding import Finding
from dataloader.check.sample import SampleFiles
from dataloader.section import IMAGE_SUFFIXES
from tasks import TASKS

_NEEDED = ("rgb", "poses", "calibration")
_SUFFIXES = {"rgb": IMAGE_SUFFIXES, "poses": {".txt"}, "calibration": {".txt"}} | {
    task.label_folder: {task.label_suffix} for task in TASKS.values()
}
# What file managers leave in folders that they only looked at.
_NOT_CONTENT = ("thumbs.db", "desktop.ini")
_NAMED = 5


def section_folders(folder: Path, names: list[str] | None = None) -> list[Path]:
    """The sections of a scene, or the one that a folder is.

    Raises:
        FileNotFoundError, ValueError: no such folder, no section in it, or not those that were named.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    if _is_section(folder):
        found = [folder]
    else:
        found = sorted(
            path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".") and _is_section(path)
        )
    if not found:
        raise ValueError(f"{folder} is no section and holds none (a section has the folders {', '.join(_NEEDED)})")
    if names:
        missing = sorted(set(names) - {path.name for path in found})
        if missing:
            raise ValueError(f"{folder} has no sections {missing}; present: {[path.name for path in found]}")
        found = [path for path in found if path.name in names]
    return found


def _is_section(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ("rgb", "poses", "init"))


def samples_of(section: Path) -> tuple[list[SampleFiles], list[Finding]]:
    """All samples of a section, complete or not, and what is wrong with how its files pair."""
    name, findings = section.name, []
    listed = {folder: _listed(section, folder, findings) for folder in _SUFFIXES if (section / folder).is_dir()}
    for folder in _NEEDED:
        if folder not in listed:
            findings.append(Finding("missing-folder", name, "", f"{section} has no folder {folder}"))
    if not any(task.label_folder in listed for task in TASKS.values()):
        findings.append(Finding("missing-folder", name, "", f"{section} has no labels (init, depth, normal or semantics)"))
    stems = sorted(set().union(*listed.values()))
    if not stems:
        findings.append(Finding("empty-section", name, "", f"{section} holds no sample"))
    for folder, paths in listed.items():
        missing = [stem for stem in stems if stem not in paths]
        if missing:
            named = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
            findings.append(
                Finding("missing-file", name, missing[0], f"{section / folder} lacks {len(missing)} files: {named}")
            )
    samples = [
        SampleFiles(name, stem, {folder: paths[stem] for folder, paths in listed.items() if stem in paths}) for stem in stems
    ]
    return samples, findings


def _listed(section: Path, folder: str, findings: list[Finding]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted((section / folder).iterdir()):
        if path.name.startswith(".") or path.name.lower() in _NOT_CONTENT:
            continue
        if path.suffix.lower() not in _SUFFIXES[folder]:
            findings.append(
                Finding("stray-file", section.name, path.stem, f"{path} is not of {', '.join(sorted(_SUFFIXES[folder]))}")
            )
        elif path.stem in found:
            findings.append(
                Finding("two-files", section.name, path.stem, f"two files of one name: {found[path.stem]} and {path.name}")
            )
        elif path.is_symlink() and not path.exists():
            findings.append(
                Finding("broken-link", section.name, path.stem, f"{path} points at {path.readlink()}, which is not there")
            )
        else:
            found[path.stem] = path
    return found
