"""Weights files: the round trip of all kinds of networks, and what is said about files that are none."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import zipfile

import numpy as np
import pytest
import torch

from networks import (
    Architecture,
    TransPoseNet,
    architecture_of,
    build,
    init_head,
    load_network,
    load_published,
    load_state_dict,
    published_state_dict,
    save_network,
)

TINY = Architecture(tiny=True)
FUSED = Architecture(tiny=True, num_encoders=2)
MEAN = torch.tensor([10.0, 20.0, 30.0])


@pytest.fixture(scope="module")
def good():
    """Published weights of a tiny coord network; tests change copies."""
    return published_state_dict(TransPoseNet(TINY, MEAN))


@pytest.mark.parametrize("architecture", [TINY, FUSED, Architecture(tiny=True, fullsize=True, in_channels=1)])
def test_folding_the_head_scale_changes_no_prediction(architecture, tmp_path):
    torch.manual_seed(0)
    net = build(architecture, MEAN)
    init_head(net, 73.0)
    net.eval()
    images = torch.randn(1, architecture.in_channels, 48, 64)
    prediction, sigma = net(images)
    save_network(net, tmp_path / "model.net")
    random_state = torch.get_rng_state()
    loaded = load_network(tmp_path / "model.net")
    again = load_network(tmp_path / "model.net", head_scale=11.0)
    assert torch.equal(torch.get_rng_state(), random_state)
    for other in (loaded, again):
        assert other.architecture == architecture and not other.training
        torch.testing.assert_close(other(images)[0], prediction, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(other(images)[1], sigma, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loaded.decoder.fc3.weight[:3], 73 * net.decoder.fc3.weight[:3])
    torch.testing.assert_close(loaded.decoder.fc3.bias[:3], 73 * net.decoder.fc3.bias[:3])
    torch.testing.assert_close(again.decoder.fc3.weight[:3] * 11, 73 * net.decoder.fc3.weight[:3])
    torch.testing.assert_close(loaded.decoder.fc3.weight[3:], net.decoder.fc3.weight[3:])
    assert [p.name for p in tmp_path.iterdir()] == ["model.net"]
    assert all(v.is_contiguous() and v.dtype == torch.float32 for v in load_state_dict(tmp_path / "model.net").values())


def test_saving_leaves_the_network_alone(tmp_path):
    net = TransPoseNet(TINY)
    init_head(net, 5.0)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    published = published_state_dict(net)
    for value in published.values():
        value.zero_()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_half_and_double_precision_files_become_float32(good, tmp_path):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({key: value.to(dtype) for key, value in good.items()}, tmp_path / "model.net")
        loaded = load_state_dict(tmp_path / "model.net")
        assert all(torch.equal(value, good[key].to(dtype).float()) for key, value in loaded.items())
        load_network(tmp_path / "model.net")


def test_files_of_old_versions_of_torch_are_read(good, tmp_path):
    torch.save(good, tmp_path / "old.net", _use_new_zipfile_serialization=False)
    assert all(torch.equal(value, good[key]) for key, value in load_state_dict(tmp_path / "old.net").items())


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_file_is_not_run(good, tmp_path):
    touched = tmp_path / "touched"
    torch.save({**good, "mean": _Touch(touched)}, tmp_path / "code.net")
    (tmp_path / "plain.net").write_bytes(pickle.dumps({"mean": _Touch(touched)}))
    torch.save(TransPoseNet(TINY), tmp_path / "module.net")
    for name, found in (
        ("code.net", r"a Python object \(io\.open\)"),
        ("plain.net", ""),
        ("module.net", r"a Python object \(networks\.transposenet\.TransPoseNet\)"),
    ):
        with pytest.raises(ValueError, match=rf"{name}.*{found}.*expected a plain state dict") as caught:
            load_network(tmp_path / name)
        assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
    assert not touched.exists()


def test_files_that_people_mistake_for_weights_are_named(good, tmp_path):
    for name, entries in {"zip.net": ["readme.txt"], "script.net": ["m/data.pkl", "m/code/__torch__.py"]}.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for entry in entries:
                archive.writestr(entry, "hello")
    np.save(tmp_path / "array.npy", np.zeros(3))
    contents = {
        "lfs.net": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 107000000\n",
        "page.net": b"\n<!DOCTYPE html><html>404</html>", "empty.net": b"", "json.net": b'{"mean": 1}',
        "array.net": (tmp_path / "array.npy").read_bytes(), "gzip.net": b"\x1f\x8b\x08\x00", "keras.net": b"\x89HDF\r\n",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name, kind in {
        "lfs.net": "a Git LFS pointer instead of the file", "page.net": "a web page", "empty.net": "an empty file",
        "json.net": "a JSON text", "array.net": "a NumPy array", "gzip.net": "a gzip archive", "keras.net": "an HDF5 file",
        "script.net": "a TorchScript archive, whose code is not run",
        "zip.net": r"a zip archive of other things \(readme\.txt\)",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"{name} is {kind}.*; expected a plain state dict") as caught:
            load_network(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_damaged_files_are_refused_wherever_they_are_damaged(good, tmp_path):
    small = {"mean": torch.randn(3), "decoder.mean": torch.randn(500)}
    torch.save(small, tmp_path / "whole.net")
    whole = (tmp_path / "whole.net").read_bytes()
    path = tmp_path / "bad.net"
    for length in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="bad.net"):
            load_state_dict(path)
    changed = 0
    for position in range(0, len(whole), 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            loaded = load_state_dict(path)
        except ValueError as error:
            assert "bad.net" in str(error)
            changed += 1
        else:  # the byte was padding, or a name in the archive
            assert loaded.keys() == small.keys() and all(torch.equal(loaded[key], small[key]) for key in small)
    assert changed > 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2, 3], "a list of 3 entries; expected a plain state dict"),
        (torch.zeros(3), "a Tensor; expected"),
        ({}, "a dict of 0 entries"),
        ({"epoch": 3, "state_dict": {}}, r"'epoch' is a int \(2 entries: epoch, state_dict\); expected"),
        ({"state_dict": {"a": torch.zeros(1)}}, "'state_dict' is a dict of 1 entries"),
        ({1: torch.zeros(3)}, "1 is a Tensor"),
        ({"mean": torch.zeros(3, dtype=torch.int64)}, "'mean' holds torch.int64"),
        ({"mean": torch.zeros(3, dtype=torch.complex64)}, "'mean' holds torch.complex64"),
        ({"mean": torch.zeros(3).to_sparse()}, "torch.sparse_coo"),
        ({"mean": torch.tensor([0.0, float("nan"), 0.0])}, "'mean' holds NaN"),
        ({"mean": torch.full((3,), 1e300, dtype=torch.float64)}, "'mean' holds NaN or infinite"),
        ({"layer.weight": torch.zeros(1)}, r"'mean' is absent.*found 1 tensors \(layer.weight\)"),
    ],
)
def test_other_contents_are_described(content, message, tmp_path):
    torch.save(content, tmp_path / "other.net")
    with pytest.raises(ValueError, match=rf"other\.net.*{message}"):
        load_network(tmp_path / "other.net")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop("encoder.conv2.bias"),
            r"112 expected tensors 1 are missing \(encoder\.conv2\.bias\), 0 are foreign \(none\)",
        ),
        (lambda w: w.pop("mean"), "'mean' is absent"),
        (lambda w: w.pop("decoder.fc3.weight"), r"'decoder\.fc3\.weight' is absent"),
        (lambda w: w.pop("encoder.conv1.weight"), r"'encoder\.conv1\.weight' is absent"),
        (lambda w: w.update({"encoder.extra.weight": torch.zeros(1)}), r"1 are foreign \(encoder\.extra\.weight\)"),
        (
            lambda w: w.update({"encoder.conv2.bias": torch.zeros(65)}),
            r"'encoder\.conv2\.bias' has shape \(65,\), expected \(64,\)",
        ),
        (lambda w: w.update({"decoder.fc3.weight": torch.zeros(9, 128, 1, 1)}), "9 rows for 3 task channels"),
        (lambda w: w.update({"decoder.fc3.weight": torch.zeros(4, 128)}), r"shape \(4, 128\); expected 4 dimensions"),
        (
            lambda w: w.update({"decoder.fc1.weight": torch.zeros(64, 64, 1, 1)}),
            r"64 channels; expected one of \[128, 512\]",
        ),
        (lambda w: w.update({"mean": torch.zeros(5)}), "expected that or one more"),
        (lambda w: w.update({"encoder.conv1.weight": torch.zeros(32, 4, 3, 3)}), "1 or 3 channels, not 4"),
        (lambda w: w.update({"encoder.res2_skip.weight": torch.zeros(128, 128, 1, 1)}), "1 are foreign"),
        (lambda w: w.update({"mlr_norm.weight": torch.zeros(384)}), r"foreign \(mlr_norm\.weight\)"),
    ],
)
def test_contradictions_are_named(good, change, message, tmp_path):
    weights = dict(good)
    change(weights)
    torch.save(weights, tmp_path / "model.net")
    with pytest.raises(ValueError, match=rf"model\.net.*{message}"):
        load_network(tmp_path / "model.net")


def test_relatives_are_recognised(good, tmp_path):
    dsac = {"mean": torch.zeros(3), "conv1.weight": torch.zeros(32, 1, 3, 3), "conv1.bias": torch.zeros(32)}
    dsac |= {f"{name}.weight": torch.zeros(512, 512, 1, 1) for name in ("res3_conv1", "fc1", "fc2", "fc3")}
    with pytest.raises(ValueError, match=r"original DSAC\* Network.*expected those of a TransPoseNet"):
        architecture_of(dsac)
    for prefix in ("module.", "_orig_mod."):
        with pytest.raises(ValueError, match=rf"'{prefix}'.*wrapped network"):
            architecture_of({prefix + key: value for key, value in good.items()})


def test_encoders_of_a_fused_network_are_numbered():
    fused = build(FUSED).state_dict()
    with pytest.raises(ValueError, match=r"\[1, 3\] are not numbered"):
        architecture_of({key.replace("encoder_2", "encoder_3"): value for key, value in fused.items()})
    with pytest.raises(ValueError, match=r"'mlr_encoder_2\.norm1\.bias' has shape \(31,\), expected \(32,\)"):
        load_published(build(FUSED), {**fused, "mlr_encoder_2.norm1.bias": torch.zeros(31)})


def test_weights_of_another_architecture_are_refused(good):
    for other, difference in (
        (Architecture(tiny=True, in_channels=1), "in_channels=3 instead of 1"),
        (Architecture(tiny=True, uncertainty="none"), "uncertainty='mle' instead of 'none'"),
        (Architecture(tiny=True, fullsize=True), "fullsize=False instead of True"),
        (FUSED, "num_encoders=0 instead of 2"),
    ):
        net = build(other)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        with pytest.raises(ValueError, match=difference):
            load_published(net, good)
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.net"):
        load_network(tmp_path / "missing.net")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        save_network(TransPoseNet(TINY), tmp_path / "nowhere" / "model.net")


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """The limit of a process's files stands for a full disk."""
    path = tmp_path / "model.net"
    path.write_text("the last one")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(OSError, match=r"cannot write .*model\.net: File too large"):
            save_network(TransPoseNet(TINY), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "the last one" and os.listdir(tmp_path) == ["model.net"]


def test_a_width_of_no_network_is_named(good):
    good["decoder.fc1.weight"] = torch.zeros(7, 5, 1, 1)
    with pytest.raises(ValueError, match=r"'decoder\.fc1\.weight' has 7 channels; expected one of"):
        architecture_of(good)
