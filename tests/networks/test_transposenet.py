"""The network has the published names and sizes, reads its architecture from weights, and survives the file round trip."""

from __future__ import annotations

import pytest
import torch

from networks import Architecture, TransPoseNet, architecture_of, load_network, load_state_dict, save_network

TINY = Architecture(tiny=True)


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("tiny", "count"), [(False, 26_836_996), (True, 2_200_580)])
def test_parameter_counts_are_the_published_ones(tiny, count):
    assert parameters(TransPoseNet(Architecture(tiny=tiny))) == count


def test_state_dict_names_are_the_published_ones():
    keys = set(TransPoseNet(Architecture()).state_dict())
    expected = {"mean", "decoder.mean"}
    encoder = [f"conv{i}" for i in range(1, 5)] + [f"norm{i}" for i in range(1, 5)]
    encoder += [f"res{r}_{kind}{i}" for r in (1, 2) for kind in ("conv", "norm") for i in (1, 2, 3)]
    encoder += ["res2_skip", "res2_skip_norm"]
    encoder += [f"enc_add_res_block{b}.{i}" for b in (1, 2) for i in (0, 1, 3, 4, 6, 7)]
    decoder = [f"dec_add_res_block{b}.{i}" for b in (1, 2) for i in (0, 1, 3, 4, 6, 7)]
    decoder += [f"res3_{kind}{i}" for kind in ("conv", "norm") for i in (1, 2, 3)]
    decoder += ["fc1", "fc2", "fc3", "fc1_norm", "fc2_norm"]
    expected |= {f"encoder.{name}.{p}" for name in encoder for p in ("weight", "bias")}
    expected |= {f"decoder.{name}.{p}" for name in decoder for p in ("weight", "bias")}
    assert keys == expected
    tiny_keys = set(TransPoseNet(TINY).state_dict())
    assert keys - tiny_keys == {f"encoder.res2_skip{n}.{p}" for n in ("", "_norm") for p in ("weight", "bias")}
    assert tiny_keys < keys


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture(),
        TINY,
        Architecture.for_task("depth", tiny=True, uncertainty="none", in_channels=1),
        Architecture.for_task("normal", tiny=True),
        Architecture.for_task("semantics", tiny=True, uncertainty="none", fullsize=True),
    ],
)
def test_architecture_is_read_from_the_weights(architecture):
    assert architecture_of(TransPoseNet(architecture).state_dict()) == architecture


@pytest.mark.parametrize("size", [(64, 96), (67, 91), (120, 41)])
def test_output_has_one_cell_per_eight_pixels_rounded_up(size):
    net = TransPoseNet(TINY, torch.tensor([1.0, 2.0, 3.0])).eval()
    prediction, sigma = net(torch.randn(2, 3, *size))
    h, w = -(-size[0] // 8), -(-size[1] // 8)
    assert prediction.shape == (2, 3, h, w) and sigma.shape == (2, 1, h, w)
    assert prediction.dtype == sigma.dtype == torch.float32 and (sigma > 0).all()


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
    before, _ = net(images)
    net.init_head(80.0)
    after, sigma = net(images)
    mean = net.mean[:, None, None]
    torch.testing.assert_close(after - mean, 80 * (before - mean), rtol=1e-4, atol=1e-3)
    assert 20 < sigma.median() < 320


def test_folding_the_head_scale_changes_no_prediction(tmp_path):
    torch.manual_seed(0)
    net = TransPoseNet(TINY, torch.tensor([10.0, 20.0, 30.0]))
    net.init_head(73.0)
    net.eval()
    images = torch.randn(1, 3, 48, 64)
    prediction, sigma = net(images)
    save_network(net, tmp_path / "model.net")
    loaded = load_network(tmp_path / "model.net")
    again = load_network(tmp_path / "model.net", head_scale=11.0)
    for other in (loaded, again):
        assert other.architecture == TINY
        torch.testing.assert_close(other(images)[0], prediction, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(other(images)[1], sigma, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loaded.decoder.fc3.weight[:3], 73 * net.decoder.fc3.weight[:3])
    torch.testing.assert_close(again.decoder.fc3.weight[:3] * 11, 73 * net.decoder.fc3.weight[:3])
    torch.testing.assert_close(loaded.decoder.fc3.weight[3:], net.decoder.fc3.weight[3:])
    assert [p.name for p in tmp_path.iterdir()] == ["model.net"]
    assert all(v.is_contiguous() and v.dtype == torch.float32 for v in load_state_dict(tmp_path / "model.net").values())


def test_bad_weights_files_are_refused_by_name(tmp_path):
    net = TransPoseNet(TINY)
    good = net.published_state_dict()

    def write(name, content):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    with pytest.raises(FileNotFoundError, match="missing.net"):
        load_network(tmp_path / "missing.net")
    (tmp_path / "text.net").write_text("not weights")
    (tmp_path / "empty.net").write_bytes(b"")
    whole = write("whole.net", good).read_bytes()
    (tmp_path / "truncated.net").write_bytes(whole[: len(whole) // 2])
    write("list.net", [1, 2, 3])
    write("arbitrary.net", {"mean": Architecture()})
    write("nan.net", {**good, "mean": torch.tensor([0.0, float("nan"), 0.0])})
    write("other.net", {"conv1.weight": torch.zeros(1)})
    write("foreign.net", {**good, "encoder.extra.weight": torch.zeros(1)})
    write("missing_key.net", {k: v for k, v in good.items() if k != "encoder.conv2.bias"})
    write("shape.net", {**good, "encoder.conv2.bias": torch.zeros(65)})
    write("rows.net", {**good, "decoder.fc3.weight": torch.zeros(9, 128, 1, 1)})
    for path in sorted(tmp_path.glob("*.net")):
        if path.name != "whole.net":
            with pytest.raises(ValueError, match=path.name):
                load_network(path)
    with pytest.raises(ValueError, match=r"encoder\.conv2\.bias"):
        load_network(tmp_path / "missing_key.net")
    with pytest.raises(ValueError, match=r"encoder\.extra\.weight"):
        load_network(tmp_path / "foreign.net")


def test_weights_of_another_architecture_are_refused():
    with pytest.raises(ValueError, match="in_channels=1"):
        TransPoseNet(TINY).load_published(TransPoseNet(Architecture(tiny=True, in_channels=1)).published_state_dict())


@pytest.mark.parametrize("fields", [{"task_channels": 4}, {"uncertainty": "MLE"}, {"in_channels": 2}])
def test_impossible_architectures_are_refused(fields):
    with pytest.raises(ValueError, match=str(next(iter(fields.values())))):
        Architecture(**fields)


def test_wrong_image_channels_and_means_are_refused():
    with pytest.raises(ValueError, match="3 channels"):
        TransPoseNet(TINY)(torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match="3 finite numbers"):
        TransPoseNet(TINY, torch.zeros(2))
    with pytest.raises(ValueError, match="head scale"):
        TransPoseNet(TINY).head_scale = 0.0


def test_training_and_inference_predict_the_same():
    torch.manual_seed(0)
    net = TransPoseNet(TINY)
    images = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        inference = net(images)[0]
    torch.testing.assert_close(net.train()(images)[0], inference, rtol=1e-4, atol=1e-4)


def test_fused_weights_are_recognised_and_not_mistaken_for_single_ones(tmp_path):
    single = TransPoseNet(TINY).published_state_dict()
    fused = {key: value for key, value in single.items() if not key.startswith("encoder.")}
    for branch in (1, 2, 3):
        fused |= {f"mlr_{k.replace('encoder.', f'encoder_{branch}.')}": v for k, v in single.items() if k[:8] == "encoder."}
    assert architecture_of(fused) == Architecture(tiny=True, num_encoders=3)
    torch.save(fused, tmp_path / "crossloc.net")
    with pytest.raises(ValueError, match=r"crossloc\.net.*fused network of 3 encoders"):
        load_network(tmp_path / "crossloc.net")
    with pytest.raises(ValueError, match="not numbered"):
        architecture_of({key.replace("encoder_2", "encoder_4"): value for key, value in fused.items()})


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
