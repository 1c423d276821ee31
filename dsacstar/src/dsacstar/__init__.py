"""Camera pose from scene coordinates: a fast, robust and differentiable DSAC* solver.

The published functions (same names, same argument order): `forward_rgb`, `forward_rgbd`.
The modern face: `solve` with `RansacOptions` and `Result`.
"""

from dsacstar._core import instruction_set
from dsacstar.published import forward_rgb, forward_rgbd
from dsacstar.solving import RansacOptions, Result, solve

__version__ = "2.0.0"

__all__ = [
    "RansacOptions",
    "Result",
    "__version__",
    "forward_rgb",
    "forward_rgbd",
    "instruction_set",
    "solve",
]
