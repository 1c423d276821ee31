"""Exported networks against PyTorch, and a pose from one."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from dataloader.preprocessing import Preprocessing
from dataloader.scenes import PUBLISHED_SCENES
from exports.onnx import METADATA_KEY, ExportOptions, export_network
from exports.onnx_pose import pose_of
from networks import Architecture, build, save_network
from runs.record import RunRecord, write_sidecar

COLOURS = Preprocessing(64, False, (0.3, 0.4, 0.5), (0.2, 0.25, 0.3))


def write_weights(path, **architecture):
    torch.manual_seed(0)
    architecture = Architecture(tiny=True, **architecture)
    save_network(build(architecture), path)
    record = RunRecord(
        name="run", scene="scene", task="coord", stage="pretrain", kind="sim_only", domain=None, sim_chunk=1.0,
        real_chunk=0.0, architecture=architecture, options={"seed": 1}, sections=(), images_per_epoch=1,
        preprocessing=COLOURS, statistics=PUBLISHED_SCENES["urbanscape"],
        frame={"crs": "EPSG:32632", "origin_xyz": [1.0, 2.0, 3.0]}, cameras=None, parents=(), software={},
    )  # fmt: skip
    write_sidecar(path, record)
    return path


def test_a_fused_network_by_torch_export(tmp_path):
    """The file alone: other size and batch than it was traced with, normalisation inside."""
    weights = write_weights(tmp_path / "model.net", num_encoders=2)
    assert export_network(ExportOptions(weights, tmp_path / "out/net.pt2")) < 1e-4
    found = {METADATA_KEY: ""}
    program = torch.export.load(str(tmp_path / "out/net.pt2"), extra_files=found)
    metadata = json.loads(found[METADATA_KEY])
    assert metadata["image_height"] == 64 and metadata["stride"] == 8 and metadata["frame"]["origin_xyz"] == [1, 2, 3]
    images = torch.randint(0, 256, (3, 3, 70, 90), dtype=torch.uint8)
    from networks import load_network

    network = load_network(weights).eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in (COLOURS.rgb_mean, COLOURS.rgb_std))
    with torch.inference_mode():
        expected = network((images / 255 - mean) / std)
        for value, true in zip(program.module()(images), expected, strict=True):
            torch.testing.assert_close(value, true, rtol=1e-3, atol=1e-3 * float(true.abs().max()))


def test_an_export_tells_of_itself_only(tmp_path):
    """No warning of a network in training mode, no word of the tracer's: one line."""
    weights = write_weights(tmp_path / "model.net")
    words = [sys.executable, "-W", "error:Exporting a model:UserWarning", "-m", "exports.onnx", weights, tmp_path / "a.pt2"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "differs from PyTorch" in done.stderr


def test_a_network_in_onnxruntime(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"the optional package {package} is not installed")
    import onnxruntime

    weights = write_weights(tmp_path / "model.net")
    assert export_network(ExportOptions(weights, tmp_path / "net.onnx")) < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    prediction, sigma = session.run(None, {"image": np.zeros((1, 3, 80, 100), np.uint8)})
    assert prediction.shape == (1, 3, 10, 13) and sigma.shape == (1, 1, 10, 13)
    assert json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])["task"] == "coord"


def test_the_example_ends_in_a_pose(tmp_path):
    """A network that says the same of every image: what a camera 80 m above slanted ground sees, at half of the size."""
    onnx = pytest.importorskip("onnx", reason="the optional package onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the optional package onnxruntime is not installed")
    columns, rows = np.meshgrid(np.arange(12) * 8 + 4.0, np.arange(8) * 8 + 4.0)
    rays = np.stack(((columns - 48) / 64, -(rows - 32) / 64, -np.ones((8, 12))))  # looking down, y up
    coords = rays * 80 / (1 - 0.1 * rays[0]) + np.array([5.0, -3, 80])[:, None, None]
    helper, value = onnx.helper, onnx.numpy_helper.from_array(coords[None].astype(np.float32))
    size = onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["prediction"], value=value)], "fixed",
        [helper.make_tensor_value_info("image", size.UINT8, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("prediction", size.FLOAT, [1, 3, 8, 12])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(FileNotFoundError, match="network file not found: .*none.onnx"):
        pose_of(tmp_path / "none.onnx", np.zeros((128, 192, 3), np.uint8), (128.0, 128.0, 96.0, 64.0))
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ValueError, match="text.onnx cannot be loaded by onnxruntime: .*INVALID_PROTOBUF"):
        pose_of(tmp_path / "text.onnx", np.zeros((128, 192, 3), np.uint8), (128.0, 128.0, 96.0, 64.0))
    with pytest.raises(ValueError, match="not a network of the coord task"):
        onnx.save(model, str(tmp_path / "net.onnx"))
        pose_of(tmp_path / "net.onnx", np.zeros((128, 192, 3), np.uint8), (128.0, 128.0, 96.0, 64.0))
    helper.set_model_props(model, {METADATA_KEY: json.dumps({"task": "coord", "image_height": 64, "stride": 8})})
    onnx.save(model, str(tmp_path / "net.onnx"))
    found = pose_of(tmp_path / "net.onnx", np.zeros((128, 192, 3), np.uint8), (128.0, 128.0, 96.0, 64.0))
    np.testing.assert_allclose(found.pose[:3, 3], [5, -3, 80], atol=1e-2)
    np.testing.assert_allclose(found.pose[:3, :3], np.diag([1.0, -1, -1]), atol=1e-3)


def test_what_cannot_be_exported(tmp_path, repository, monkeypatch):
    weights = write_weights(tmp_path / "model.net")
    command = [sys.executable, "-m", "exports.onnx", str(weights), str(tmp_path / "net.tflite")]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 2 and "error: unknown ending '.tflite'" in done.stderr
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"cannot write net.pt2 into .*/file: it is a file"):
        export_network(ExportOptions(weights, tmp_path / "file/net.pt2"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="optional package onnx"):
        export_network(ExportOptions(weights, tmp_path / "net.onnx"))
    (tmp_path / "model.json").unlink()
    with pytest.raises(ValueError, match="has no record"):
        export_network(ExportOptions(weights, tmp_path / "net.onnx"))
    assert not (tmp_path / "net.onnx").exists()
