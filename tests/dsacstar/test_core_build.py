"""The C++ core: no warning on any compiler found, and a fuzz run under Address- and UndefinedBehaviorSanitizer."""

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "dsacstar" / "src" / "cpp"
WARNINGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Checks at every access through a pointer, which double the time to compile. A null pointer stops AddressSanitizer as well;
# the rest is left to the long run.
COSTLY_CHECKS_OFF = ["-fno-sanitize=null,alignment,object-size,vptr,pointer-overflow"]
# Kernels of one width: the widest, which reads farthest beyond the last cell, lowered to what any CPU runs.
ONE_WIDTH = ["-DDSAC_ONLY_LANES=16", "-Wno-psabi"]
LONG_RUN = "DSACSTAR_FUZZ_RUNS" in os.environ
FUZZ_RUNS = int(os.environ.get("DSACSTAR_FUZZ_RUNS", "60"))


def eigen_include() -> str:
    cmeel = importlib.util.find_spec("cmeel")
    candidates = [Path("/usr/include/eigen3")]
    if cmeel is not None:
        candidates.insert(0, Path(cmeel.origin).parent.parent / "cmeel.prefix" / "include" / "eigen3")
    for folder in candidates:
        if (folder / "Eigen" / "Core").is_file():
            return str(folder)
    pytest.skip("no Eigen headers (pip install cmeel-eigen)")


def compiler(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"no {name} on this machine")


def run(command: list[str], **options) -> str:
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.mark.parametrize("name", ["g++", "clang++"])
def test_bindings_compile_without_warnings(name):
    pybind11 = pytest.importorskip("pybind11")
    system = [eigen_include(), pybind11.get_include(), sysconfig.get_paths()["include"]]
    if not (Path(system[-1]) / "Python.h").is_file():
        pytest.skip(f"no Python.h in {system[-1]}")
    includes = [flag for folder in system for flag in ("-isystem", folder)]
    run([compiler(name), *WARNINGS, "-fsyntax-only", *includes, str(CORE / "bindings.cpp")])


def test_fuzz_under_sanitizers(tmp_path):
    cxx, eigen = compiler("g++"), eigen_include()
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    if subprocess.run([cxx, *SANITIZERS, "-o", tmp_path / "probe", probe], capture_output=True).returncode != 0:
        pytest.skip(f"{cxx} has no sanitizer libraries")
    # One translation unit: Eigen's headers, which cost more than the core, are read and instantiated once.
    sources = [*sorted(CORE.glob("*.cpp")), Path(__file__).parent / "fuzz_driver.cpp"]
    everything = tmp_path / "everything.cpp"
    everything.write_text("".join(f'#include "{source}"\n' for source in sources if source.name != "bindings.cpp"))
    driver = tmp_path / "fuzz_driver"
    flags = [
        *WARNINGS,
        *SANITIZERS,
        *([] if LONG_RUN else COSTLY_CHECKS_OFF),
        *ONE_WIDTH,
        "-O1",
        "-g1",
        "-isystem",
        eigen,
        f"-I{CORE}",
    ]
    run([cxx, *flags, str(everything), "-o", str(driver), "-pthread"])
    assert f"{FUZZ_RUNS} cases" in run([str(driver), str(FUZZ_RUNS), "1"], timeout=600)
