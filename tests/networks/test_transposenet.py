"""The single-task network: sizes, head, bad input. Its numbers: test_golden.py; its files: test_weights.py."""

from __future__ import annotations

import pytest
import torch

from networks import Architecture, TransPoseNet, architecture_of, build, init_head, set_head_scale

TINY = Architecture(tiny=True)


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("tiny", "count"), [(False, 26_836_996), (True, 2_200_580)])
def test_parameter_counts_are_the_published_ones(tiny, count):
    assert parameters(TransPoseNet(Architecture(tiny=tiny))) == count


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(),
        TINY,
        Architecture.for_task("depth", tiny=True, uncertainty="none", in_channels=1),
        Architecture.for_task("normal", tiny=True),
        Architecture.for_task("coord", tiny=True, fullsize=True),
        Architecture.for_task("semantics", tiny=True, uncertainty="none", fullsize=True),
        Architecture(tiny=True, num_encoders=1),
        Architecture.for_task("depth", tiny=True, uncertainty="none", fullsize=True, in_channels=1, num_encoders=4),
    ],
)
def test_architecture_is_read_from_the_weights(architecture):
    net = build(architecture)
    assert net.architecture == architecture and architecture_of(net.state_dict()) == architecture


@pytest.mark.parametrize("size", [(64, 96), (67, 91), (120, 41)])
def test_output_has_one_cell_per_eight_pixels_rounded_up(size):
    net = TransPoseNet(TINY, torch.tensor([1.0, 2.0, 3.0])).eval()
    prediction, sigma = net(torch.randn(2, 3, *size))
    h, w = -(-size[0] // 8), -(-size[1] // 8)
    assert prediction.shape == (2, 3, h, w) and sigma.shape == (2, 1, h, w)
    assert prediction.dtype == sigma.dtype == torch.float32 and (sigma > 0).all()


def test_fullsize_output_with_uncertainty_has_the_image_size():
    net = TransPoseNet(Architecture(tiny=True, fullsize=True))
    prediction, sigma = net(torch.randn(1, 3, 45, 70))
    assert prediction.shape == (1, 3, 45, 70) and sigma.shape == (1, 1, 45, 70) and (sigma > 0).all()


def test_fullsize_output_has_the_image_size():
    net = TransPoseNet(Architecture.for_task("semantics", tiny=True, uncertainty="none", fullsize=True))
    prediction, sigma = net(torch.randn(1, 3, 45, 70))
    assert prediction.shape == (1, 6, 45, 70) and sigma is None


def test_the_head_stays_in_float32_under_autocast():
    net = TransPoseNet(TINY, torch.tensor([1000.123, 0.0, 0.0]))
    net.decoder.fc3.weight.data.zero_()
    net.decoder.fc3.bias.data.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        prediction, sigma = net(torch.randn(1, 3, 32, 32))
    assert prediction.dtype == sigma.dtype == torch.float32
    assert torch.equal(prediction[:, 0], torch.full((1, 4, 4), 1000.123))


def test_uncertainty_is_the_clamped_exponential():
    net = TransPoseNet(TINY)
    net.decoder.fc3.weight.data.zero_()
    for bias, expected in ((1.5, torch.tensor(1.5).exp()), (-50.0, 1.0186e-7), (50.0, 1.0045e6)):
        net.decoder.fc3.bias.data[-1] = bias
        assert net(torch.zeros(1, 3, 16, 16))[1].mean().item() == pytest.approx(float(expected), rel=1e-3)


def test_init_head_puts_prediction_and_uncertainty_in_the_scenes_units():
    torch.manual_seed(0)
    net = TransPoseNet(TINY, torch.tensor([5.0, -5.0, 0.0]))
    images = torch.randn(2, 3, 64, 64)
    before, _ = net(images)  # of a fresh head, whose scale is one
    init_head(net, 80.0)
    after, sigma = net(images)
    mean = net.mean[:, None, None]
    torch.testing.assert_close(after - mean, 80 * (before - mean), rtol=1e-4, atol=1e-3)
    assert 20 < sigma.median() < 320


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task_channels": 4}, r"4 task channels .* \[1, 2, 3, 6\]"),
        ({"uncertainty": "MLE"}, r"'MLE'.*'none', 'mle'"),
        ({"in_channels": 2}, "1 or 3 channels, not 2"),
        ({"num_encoders": -1}, "-1"),
        ({"task_channels": 6, "fullsize": True}, "semantics networks have no uncertainty 'mle'"),
        ({"task_channels": 6, "uncertainty": "none"}, "fullsize"),
    ],
)
def test_impossible_architectures_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**fields)


def test_a_contradiction_names_what_differs():
    found, wanted = Architecture(tiny=True, in_channels=1), Architecture(num_encoders=2)
    assert found.contradiction(found) == ""
    assert (
        found.contradiction(wanted) == "tiny=True instead of False, in_channels=1 instead of 3, num_encoders=0 instead of 2"
    )
    assert found.contradiction(wanted, "task", "uncertainty") == ""
    assert found.contradiction(Architecture.for_task("depth"), "task") == "task='coord' instead of 'depth'"


def test_wrong_image_channels_and_means_are_refused():
    with pytest.raises(ValueError, match="3 channels"):
        TransPoseNet(TINY)(torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="3 finite numbers"):
        TransPoseNet(TINY, torch.zeros(2))
    with pytest.raises(ValueError, match="head scale"):
        set_head_scale(TransPoseNet(TINY), 0.0)


def test_training_and_inference_predict_the_same():
    torch.manual_seed(0)
    net = TransPoseNet(TINY)
    images = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        inference = net(images)[0]
    torch.testing.assert_close(net.train()(images)[0], inference, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu():
    torch.manual_seed(0)
    net = TransPoseNet(TINY)
    images = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        expected = net(images)
        found = net.to("cuda")(images.to("cuda"))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-2, atol=1e-2)
