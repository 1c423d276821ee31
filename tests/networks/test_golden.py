"""Forward passes of all kinds of networks against those of the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from networks import (
    Architecture,
    architecture_of,
    build,
    head_scale_of,
    load_network,
    load_published,
    published_state_dict,
    save_network,
    set_head_scale,
)
from tests import golden

ARCHITECTURES = {
    "coord_mle_full": Architecture(),
    "coord_mle_tiny": Architecture(tiny=True),
    "depth_none_tiny": Architecture(1, "none", tiny=True),
    "normal_mle_tiny_gray": Architecture(2, tiny=True, in_channels=1),
    "semantics_full": Architecture(6, "none", fullsize=True),
    "semantics_tiny": Architecture(6, "none", tiny=True, fullsize=True),
    "fused3_tiny": Architecture(tiny=True, num_encoders=3),
    "fused4_full": Architecture(num_encoders=4),
}
# Float32 sums in another order differ by up to 2e-5 of the largest value (seen: 1.6e-5).
TOLERANCE = 5e-5


def output(net, images):
    prediction, sigma = net(images)
    both = prediction if sigma is None else torch.cat((prediction, sigma), 1)
    step = golden.SEMANTICS_STEP if net.architecture.fullsize else 1
    return both.detach()[..., ::step, ::step]


def assert_golden(found, name):
    expected = golden.network_output(name)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max(), name


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_shapes_and_order_of_the_weights_are_the_published_ones(name):
    found = {key: list(value.shape) for key, value in build(ARCHITECTURES[name]).state_dict().items()}
    assert list(found.items()) == list(golden.SHAPES[name].items())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_forward_pass_is_the_published_one(name, tmp_path):
    weights = golden.network_weights(name)
    assert architecture_of(weights) == ARCHITECTURES[name]
    torch.save(weights, tmp_path / "model.net")
    net = load_network(tmp_path / "model.net")
    assert net.architecture == ARCHITECTURES[name] and not net.training
    images = golden.network_input(net.architecture.in_channels)
    with torch.no_grad():
        assert_golden(output(net, images), name)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if "tiny" in name])
def test_a_network_in_training_with_a_head_scale_predicts_the_same(name, layout, tmp_path):
    """With gradients wanted, another normalisation runs on CPUs; a head scale only moves numbers between two factors."""
    weights = golden.network_weights(name)
    net = build(ARCHITECTURES[name]).to(memory_format=layout).train()
    set_head_scale(net, 73.0)
    load_published(net, weights)
    assert head_scale_of(net) == 73.0
    assert_golden(output(net, golden.network_input(net.architecture.in_channels)), name)
    save_network(net, tmp_path / "model.net")
    for written in (published_state_dict(net), torch.load(tmp_path / "model.net", weights_only=True)):
        assert list(written) == list(weights)
        for key, value in weights.items():
            torch.testing.assert_close(written[key], value, rtol=1e-6, atol=0)


def test_the_copies_are_the_values_handed_over(repository: Path):
    folder = repository.parent / "shared" / "data" / "golden"
    if not folder.is_dir():
        pytest.skip(f"the original golden values are not at {folder}; their copies in tests/golden are tested")
    assert json.loads((folder / "state_dict_keys.json").read_text()) == golden.SHAPES
    with np.load(folder / "network_outputs.npz") as outputs:
        assert set(outputs.files) == set(ARCHITECTURES)
        for name in outputs.files:
            step = golden.SEMANTICS_STEP if ARCHITECTURES[name].fullsize else 1
            np.testing.assert_array_equal(golden.network_output(name).numpy(), outputs[name][..., ::step, ::step])
    assert golden.losses() == {k: tuple(v) for k, v in json.loads((folder / "losses.json").read_text()).items()}
    with np.load(folder / "loss_inputs.npz") as inputs:
        for name, value in golden.loss_inputs().items():
            np.testing.assert_array_equal(value.numpy(), inputs[name])
