"""What a type checker says about calls of the package: right ones pass, wrong ones do not."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "dsacstar" / "src"

PROGRAM = """
import numpy as np
import dsacstar

coords = np.zeros((1, 3, 6, 9), np.float32)
results = dsacstar.solve(coords, [480.0, 480.0, 36.0, 24.0], sigma=np.ones((1, 6, 9)), mask=np.ones((1, 6, 9), bool))
confidence: float = results[0].confidence
dsacstar.RansacOptions(residual="pixel")
dsacstar.solve(coords, [480.0], sigma="oops")  # wrong: sigma
dsacstar.solve("oops", [480.0])  # wrong: coordinates
dsacstar.RansacOptions(residual="metre")  # wrong: residual
wrong: str = results[0].success  # wrong: success
dsacstar.Result.posse  # wrong: attribute
"""


def test_a_type_checker_finds_what_is_wrong_and_nothing_else(tmp_path):
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("no mypy (pip install mypy)")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", "cache", program.name, "--config-file", "mypy.ini"]
    # torch is not followed: the package's types must hold where it is absent.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\n[mypy-torch.*]\nignore_missing_imports = True\nfollow_imports = skip\n", encoding="utf-8"
    )
    environment = {**os.environ, "MYPYPATH": str(SOURCES)}
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment).stdout
    lines = PROGRAM.splitlines()
    expected = {number for number, line in enumerate(lines, 1) if "# wrong" in line}
    errors = [line for line in found.splitlines() if line.startswith("program.py:") and ": error:" in line]
    reported = {int(line.split(":")[1]) for line in errors}
    assert reported == expected, found
