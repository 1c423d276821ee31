"""Rules that hold for every file of the repository."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OLDEST_PYTHON = (3, 10)

# Who may import what: the one place. From the bottom up; a room may import itself and what its row names. `TYPING` are rooms
# that are imported for annotations only (below `if TYPE_CHECKING`), which makes no dependency at run time.
IMPORTS = {
    "threads": (),
    "records": (),
    "geometry": (),
    "dsacstar": (),
    "tasks": ("geometry",),
    "networks": ("records", "tasks"),
    "dataloader": ("geometry", "records", "tasks", "threads"),
    "loss": ("dsacstar", "geometry", "records"),
    "runs": ("dataloader", "networks", "geometry", "records", "tasks"),
    "datagen": ("dataloader", "geometry", "records", "tasks", "threads"),
    "datasets": ("datagen",),
    "localization": (
        "datagen",
        "runs",
        "networks",
        "dataloader",
        "dsacstar",
        "geometry",
        "records",
        "tasks",
        "threads",
    ),
    "exports": ("localization", "datagen", "runs", "networks", "dsacstar", "geometry", "records", "tasks"),
    "evaluation": (
        "exports",
        "localization",
        "datagen",
        "runs",
        "loss",
        "networks",
        "dataloader",
        "dsacstar",
        "geometry",
        "records",
        "tasks",
        "threads",
    ),
    "training": ("evaluation", "runs", "loss", "networks", "dataloader", "geometry", "records", "tasks", "threads"),
    "ddloc": (
        "training",
        "evaluation",
        "localization",
        "runs",
        "loss",
        "networks",
        "dataloader",
        "geometry",
        "records",
        "tasks",
        "threads",
    ),
}
TYPING = {"loss": ("dataloader",)}
# Commands, benchmarks and tests stand above all rooms.
ABOVE = ("benchmarks", "tests", "setup", "script_clean_training", "script_clean_validation")


def files(pattern: str) -> list[str]:
    """Paths of the working tree's files, tracked or new, that git does not ignore."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "--deduplicate", "--", pattern]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:  # an unpacked archive
        return sorted(str(p.relative_to(ROOT)) for p in ROOT.rglob(pattern) if ".venv" not in p.parts)
    return sorted(name for name in listed.stdout.splitlines() if (ROOT / name).is_file())


PYTHON, BASH = files("*.py"), files("*.sh") + [".ci/run"]


def room_of(path: str) -> str:
    """The room a file belongs to: its first folder, or its own name at the top."""
    first = path.split("/")[0]
    return first.removesuffix(".py")


def imported_rooms(tree: ast.AST) -> tuple[set[str], set[str]]:
    """First names of absolute imports anywhere in a module: at run time, and for annotations only."""
    typing_only: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            typing_only |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    runtime, typing = set(), set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        (typing if id(node) in typing_only else runtime).update(name.split(".")[0] for name in names)
    return runtime, typing


def test_the_lists_are_not_empty():
    assert (
        len(PYTHON) > 100 and len(BASH) > 8 and {room_of(path) for path in PYTHON} >= IMPORTS.keys() - {"threads", "tasks"}
    )


def test_the_table_of_imports_runs_downwards_only():
    seen: set[str] = set()
    for room, below in IMPORTS.items():
        assert set(below) <= seen, f"{room} may import {set(below) - seen}, which stand above it"
        seen.add(room)


@pytest.mark.parametrize("path", [path for path in PYTHON if room_of(path) in IMPORTS])
def test_imports_run_down_the_table(path):
    room = room_of(path)
    runtime, typing = imported_rooms(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    ours = IMPORTS.keys() | set(ABOVE) | {room_of(p) for p in PYTHON if "/" not in p}
    allowed = {room, *IMPORTS[room]}
    assert not (runtime & ours) - allowed, (
        f"{path} imports {sorted((runtime & ours) - allowed)}; {room} may {sorted(allowed)}"
    )
    assert not (typing & ours) - allowed - set(TYPING.get(room, ()))


def test_every_python_file_stands_in_the_table_or_above_it():
    rooms = {room_of(path) for path in PYTHON if "/" in path}
    assert rooms <= IMPORTS.keys() | set(ABOVE), f"no row for {sorted(rooms - IMPORTS.keys() - set(ABOVE))}"


# Values do not change behind the back of whoever holds them. What is built up step by step says so here.
CHANGING = {
    ("datagen/benchmark/progress.py", "Workshop"),
    ("dataloader/check/sample.py", "Seen"),
    ("datagen/demo/structures.py", "Scene"),
    ("datagen/provenance.py", "Inputs"),
    ("evaluation/run.py", "Outcome"),
    ("evaluation/trust.py", "TrustFigures"),
}


def test_dataclasses_are_frozen():
    changing = set()
    for path in PYTHON:
        if room_of(path) in ABOVE:
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            decorators = [ast.unparse(d) for d in node.decorator_list] if isinstance(node, ast.ClassDef) else []
            declared = [text for text in decorators if text.startswith(("dataclass", "dataclasses.dataclass"))]
            if declared and "frozen=True" not in declared[0]:
                changing.add((path, node.name))
    assert changing == CHANGING


@pytest.mark.parametrize("path", PYTHON)
def test_syntax_of_the_oldest_python(path):
    ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=path, feature_version=OLDEST_PYTHON)


def calls(path: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", PYTHON)
def test_the_device_comes_from_the_caller_and_nothing_is_unpickled(path):
    """Code that says .cuda() runs on one kind of machine only; weights_only=False runs whatever a file says."""
    for call in calls(path):
        name = ast.unparse(call.func)
        assert not name.endswith(".cuda"), f"{path}:{call.lineno}: {name}()"
        assert name not in ("pickle.load", "pickle.loads", "cPickle.load"), f"{path}:{call.lineno}: {name}"
        for keyword in call.keywords:
            said = keyword.arg, ast.unparse(keyword.value)
            assert said not in (("weights_only", "False"), ("allow_pickle", "True")), f"{path}:{call.lineno}: {said}"


def test_no_sequence_is_cut_off_without_a_word():
    """zip(strict=False) is what zip does anyway; who writes a `strict` wants the lengths to agree."""
    loose = [f"{path}:{call.lineno}" for path in PYTHON if room_of(path) not in ABOVE for call in calls(path)
             for keyword in call.keywords if (keyword.arg, ast.unparse(keyword.value)) == ("strict", "False")]  # fmt: skip
    assert not loose


@pytest.mark.parametrize("path", BASH)
def test_bash_can_read_its_scripts(path):
    result = subprocess.run(["bash", "-n", str(ROOT / path)], capture_output=True, text=True)
    assert result.returncode == 0 and not result.stderr, result.stderr


@pytest.mark.parametrize("path", [path for path in BASH if not path.endswith(("common.sh",))])
def test_scripts_stop_at_the_first_error(path):
    """By themselves, or by what they source first."""
    text = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(r"^set -euo pipefail$|^source .*(common|make_env)\.sh", text, re.MULTILINE), path


def test_versions_that_ran_satisfy_the_lower_bounds():
    def numbers(version: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", version.split("+")[0].split(".post")[0])]

    required = dict(re.findall(r"^([\w-]+)[>=]=([\w.]+)$", (ROOT / "setup/requirements.txt").read_text(), re.MULTILINE))
    ran = dict(re.findall(r"^([\w-]+)==([\w.+]+)$", (ROOT / "setup/constraints.txt").read_text(), re.MULTILINE))
    assert required.keys() == ran.keys()
    for name, lowest in required.items():
        assert numbers(ran[name]) >= numbers(lowest), name
    # Builds of one release: torch 2.N goes with torchvision 0.(N + 15).
    for versions in (required, ran):
        assert numbers(versions["torchvision"])[1] == numbers(versions["torch"])[1] + 15
