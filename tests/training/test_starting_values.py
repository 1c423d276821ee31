"""What a network starts with, in closed form, and the state of generators."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

import training.starting_weights as starting_weights
import training.state as state_module
from dataloader.scenes import PUBLISHED_SCENES
from loss import LossOptions
from training.compilation import compiled
from training.objective import loss_options, objective
from training.options import DecoderOptions, RefinementOptions, TrainingOptions
from training.starting_weights import head_spread, initial_mean
from training.state import Position, position_in, restore_position

STATISTICS = PUBLISHED_SCENES["urbanscape"]


def test_the_mean_that_the_decoder_adds():
    assert initial_mean("coord", STATISTICS).tolist() == pytest.approx([-29.34, 184.17, 91.96])
    assert initial_mean("depth", STATISTICS).tolist() == pytest.approx([136.24])
    # A sigmoid of it, times a turn from minus half a turn on, is the mean angle.
    angles = (2 * torch.sigmoid(initial_mean("normal", STATISTICS)) - 1) * math.pi
    assert angles.tolist() == pytest.approx([-1.0454, -0.9858], abs=1e-5)
    assert initial_mean("semantics", STATISTICS).tolist() == [0.0] * 6
    assert [head_spread(task, STATISTICS) for task in ("coord", "depth", "normal", "semantics")] == [52.5, 43.1, 1.0, 1.0]


def test_a_message_names_its_file_once(tmp_path):
    path = tmp_path / "w.net"
    for text, expected in (("is bad", f"{path}: is bad"), (f"{path} is bad", f"{path} is bad")):
        with pytest.raises(ValueError) as caught, starting_weights._naming(path):
            raise ValueError(text)
        assert str(caught.value) == expected


def of(cls=TrainingOptions, **more):
    return cls(**{"scene": "town", "task": "coord", "lr_schedule": "step", **more})


def test_what_a_network_is_put_together_from(monkeypatch):
    events = []
    net = SimpleNamespace(encoders=[0, 1, 2])
    monkeypatch.setattr(starting_weights, "build", lambda architecture, mean: net)
    monkeypatch.setattr(starting_weights, "init_head", lambda net, spread: events.append(("head", spread)))
    monkeypatch.setattr(starting_weights, "load_state_dict", lambda path: path)
    monkeypatch.setattr(starting_weights, "load_published", lambda net, weights: events.append(("load", weights)))
    monkeypatch.setattr(
        starting_weights, "architecture_of", lambda weights: SimpleNamespace(task=weights.removesuffix(".net"))
    )
    monkeypatch.setattr(starting_weights, "init_decoder_from", lambda net, weights: events.append(("decoder", weights)))
    monkeypatch.setattr(starting_weights, "load_encoder", lambda net, number, weights: events.append((number, weights)))
    monkeypatch.setattr(starting_weights, "freeze_encoders", lambda net, numbers: events.append(("frozen", tuple(numbers))))
    record = SimpleNamespace(architecture=None, statistics=STATISTICS)
    paths = {f"{task}_weight": f"{task}.net" for task in ("coord", "depth", "normal", "semantics")}
    free = {"reuse_coord_encoder": True, "unfreeze_coord_encoder": True}
    expected = {
        "fresh": (of(), []),
        "tuned": (of(network_in="w.net"), [("load", "w.net")]),
        "fused": (of(DecoderOptions, **paths),
                  [("decoder", "coord.net"), (1, "depth.net"), (2, "normal.net"), ("frozen", (1, 2))]),
        "free": (of(DecoderOptions, **paths, **free, encoders=("coord", "depth")),
                 [("decoder", "coord.net"), (1, "coord.net"), (2, "depth.net"), ("frozen", (2,))]),
        "alone": (of(DecoderOptions, **paths, encoders=("coord",)), [("decoder", "coord.net")]),
        "continued": (of(DecoderOptions, **paths, network_in="w.net"), [("load", "w.net"), ("frozen", (1, 2))]),
        "refined": (of(RefinementOptions, network_in="w.net"), [("load", "w.net")]),
        "held": (of(RefinementOptions, network_in="w.net", freeze_encoders=True),
                 [("load", "w.net"), ("frozen", (1, 2, 3))]),
    }  # fmt: skip
    for name, (options, wanted) in expected.items():
        events.clear()
        assert starting_weights.build_network(options, record) is net and events == [("head", 52.5), *wanted], name
    with pytest.raises(ValueError, match="^depth.net: --normal_weight names a network for the task depth$"):
        starting_weights.build_network(of(DecoderOptions, **{**paths, "normal_weight": "depth.net"}), record)


def test_thresholds_in_units_of_the_depth():
    metres = LossOptions(inittolerance=0.5, mindepth=0.25)
    assert loss_options(of(loss=metres), STATISTICS) is metres
    relative = loss_options(of(loss=metres, depth_relative=True), STATISTICS)
    assert (relative.inittolerance, relative.mindepth) == pytest.approx(
        (68.12, 34.06)
    ) and relative.softclamp == metres.softclamp


def test_every_image_of_every_run_draws_hypotheses_of_its_own(monkeypatch):
    import training.objective as objective_module

    asked = []
    monkeypatch.setattr(objective_module, "pose_loss", lambda *arguments: asked.append(arguments[-1]))
    for seed in (0, 3, (1 << 30) + 3, (1 << 30) - 1):
        objective(of(RefinementOptions, network_in="w.net", seed=seed), STATISTICS)(None, None, None, 12)
    assert asked == [12, 3 * 2**32 + 12, 3 * 2**32 + 12, (2**30 - 1) * 2**32 + 12]


@pytest.mark.parametrize("devices, restored", [(2, True), (1, False), (3, False)])
def test_generators_of_as_many_gpus_go_on(monkeypatch, devices, restored):
    asked = []
    monkeypatch.setattr(state_module.torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(state_module.torch.cuda, "set_rng_state_all", asked.append)
    before = torch.get_rng_state()
    state = {
        "torch_rng": before,
        "cuda_rng": ["a", "b"],
        "images_seen": 4,
        "passed_over": [1, 2],
        "failures": 1,
        "log_bytes": {},
    }
    torch.rand(3)
    assert restore_position(state) == position_in(state) == Position(4, (1, 2), 1, {})
    assert asked == ([["a", "b"]] if restored else []) and torch.equal(torch.get_rng_state(), before)
    restore_position({**state, "cuda_rng": []})
    assert len(asked) == restored


def test_what_a_compiled_network_is_tried_on(monkeypatch, caplog):
    tried = []

    class Net(torch.nn.Module):
        architecture = SimpleNamespace(in_channels=1)

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            tried.append((tuple(images.shape), torch.is_autocast_enabled("cpu")))
            return images * self.weight, None

    monkeypatch.setattr(torch, "compile", lambda net, dynamic: tried.append(dynamic) or net)
    net = Net()
    assert compiled(net, torch.device("cpu"), "float32") is net and not caplog.text
    assert tried == [True, ((2, 1, 64, 96), False)] and net.weight.grad is None
