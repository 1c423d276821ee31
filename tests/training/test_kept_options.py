"""Every option of the commands that train: default, bounds, choices and whether it decides the result."""

from __future__ import annotations

import pytest

from tests.kept import assert_kept
from tests.option_tables import declared
from training.options import DecoderOptions, RefinementOptions, TrainingOptions


@pytest.mark.parametrize("cls", [TrainingOptions, DecoderOptions, RefinementOptions])
def test_every_option(cls):
    assert_kept("options", declared(cls), part=cls.__name__, exact=True)
