"""Builds the C++ core `dsacstar._core`; everything else is in pyproject.toml."""

import importlib.util
import os
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup


def eigen_include_dir() -> str:
    """Folder that holds `Eigen/Core`: $EIGEN_INCLUDE_DIR, the cmeel-eigen wheel, or the system's."""
    candidates = []
    if "EIGEN_INCLUDE_DIR" in os.environ:
        candidates.append(Path(os.environ["EIGEN_INCLUDE_DIR"]))
    cmeel = importlib.util.find_spec("cmeel")
    if cmeel is not None and cmeel.origin is not None:
        candidates.append(Path(cmeel.origin).parent.parent / "cmeel.prefix" / "include" / "eigen3")
    candidates += [Path("/usr/include/eigen3"), Path("/usr/local/include/eigen3")]
    for folder in candidates:
        if (folder / "Eigen" / "Core").is_file():
            return str(folder)
    raise FileNotFoundError(
        f"Eigen headers not found in {[str(c) for c in candidates]}; install cmeel-eigen or set EIGEN_INCLUDE_DIR"
    )


CORE_DIR = Path("src") / "cpp"
# -fno-math-errno lets sqrt become one instruction; nothing here changes IEEE results (no -ffast-math, no -march).
COMPILE_ARGS = ["-O3", "-fno-math-errno", "-fvisibility=hidden", "-pthread"]
ParallelCompile(default=os.cpu_count() or 1).install()

setup(
    ext_modules=[
        Pybind11Extension(
            "dsacstar._core",
            sorted(str(path) for path in CORE_DIR.glob("*.cpp")),
            depends=sorted(str(path) for path in [*CORE_DIR.glob("*.h"), *CORE_DIR.glob("*.inl")]),
            include_dirs=[eigen_include_dir()],
            cxx_std=17,
            extra_compile_args=COMPILE_ARGS,
            extra_link_args=["-pthread"],
        )
    ]
)
