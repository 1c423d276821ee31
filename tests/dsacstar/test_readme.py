"""The example of the solver's README runs as it stands and does what its comments say."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).resolve().parents[2] / "dsacstar" / "README.md"


def test_the_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(example, str(README), "exec"), names)
    assert np.abs(names["pose"].numpy() - np.eye(4)).max() < 1
    assert all(result.success and np.abs(result.pose - np.eye(4)).max() < 1 for result in names["results"])
    assert names["loss_B"].shape == (2,) and names["coords_B3hw"].grad.abs().sum() > 0
