"""Weights as safetensors and back: the same bits, the same record, and what is said about other files."""

import json
import struct
import subprocess
import sys

import pytest
import torch

from networks import Architecture, TransPoseNet, build, load_network, load_state_dict, save_network
from runs.convert import convert
from runs.record import RECORD_TEXT, record_of, write_sidecar
from tests.evaluation.conftest import make_record

safetensors_torch = pytest.importorskip("safetensors.torch", reason="the package safetensors is not installed")

TINY = Architecture(tiny=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A weights file with its record, and the same as safetensors."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    save_network(TransPoseNet(TINY, torch.tensor([1.0, 2.0, 3.0])), folder / "model.net")
    write_sidecar(folder / "model.net", make_record("scene-coord-run"))
    convert(folder / "model.net", folder / "model.safetensors")
    return folder


def test_there_and_back(exported, tmp_path):
    original = load_state_dict(exported / "model.net")
    there = load_state_dict(exported / "model.safetensors")
    assert there.keys() == original.keys() and all(torch.equal(there[name], original[name]) for name in original)
    assert record_of(exported / "model.safetensors") == record_of(exported / "model.net") == make_record("scene-coord-run")
    assert convert(exported / "model.safetensors", tmp_path / "new" / "back.net").name == "scene-coord-run"
    back = load_state_dict(tmp_path / "new" / "back.net")
    assert all(torch.equal(back[name], original[name]) for name in original)
    assert record_of(tmp_path / "new" / "back.net") == make_record("scene-coord-run")
    images = torch.randn(1, 3, 32, 48)
    torch.testing.assert_close(
        load_network(exported / "model.safetensors")(images), load_network(exported / "model.net")(images), rtol=0, atol=0
    )


def test_other_programs_can_read_it(exported):
    """By the format's own description: the length of a JSON header, the header, the tensors."""
    content = (exported / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert header["__metadata__"]["format"] == "pt"
    assert json.loads(header["__metadata__"][RECORD_TEXT])["name"] == "scene-coord-run"
    assert header["mean"]["dtype"] == "F32" and header["mean"]["shape"] == [3]
    start, end = header["mean"]["data_offsets"]
    assert struct.unpack("<3f", content[8 + length + start : 8 + length + end]) == (1.0, 2.0, 3.0)


def test_weights_without_a_record_and_of_fused_networks(tmp_path):
    save_network(build(Architecture(tiny=True, num_encoders=3)), tmp_path / "crossloc.net")
    assert convert(tmp_path / "crossloc.net", tmp_path / "crossloc.safetensors") is None
    assert record_of(tmp_path / "crossloc.safetensors") is None
    assert load_network(tmp_path / "crossloc.safetensors").architecture.num_encoders == 3
    write_sidecar(tmp_path / "crossloc.net", make_record("of earlier weights"))
    convert(tmp_path / "crossloc.safetensors", tmp_path / "crossloc.net", overwrite=True)
    assert record_of(tmp_path / "crossloc.net") is None and not (tmp_path / "crossloc.json").exists()


def test_files_of_other_makers_have_no_checksum(exported, tmp_path):
    tensors = load_state_dict(exported / "model.net")
    safetensors_torch.save_file({name: value.half() for name, value in tensors.items()}, tmp_path / "model.safetensors")
    loaded = load_state_dict(tmp_path / "model.safetensors")
    assert all(torch.equal(loaded[name], tensors[name].half().float()) for name in tensors)
    assert record_of(tmp_path / "model.safetensors") is None


def test_damage_is_noticed_wherever_it_is(exported, tmp_path):
    whole = (exported / "model.safetensors").read_bytes()
    path = tmp_path / "bad.safetensors"
    for length in (5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        for read in (load_state_dict, record_of):
            with pytest.raises(ValueError, match=r"bad\.safetensors is not a safetensors file, or a damaged one"):
                read(path)
    for position in (len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"bad\.safetensors is damaged: the checksum"):
            load_network(path)


def refused(source, target, message, **keywords):
    before = sorted(target.parent.iterdir()) if target.parent.is_dir() else []
    with pytest.raises((ValueError, OSError), match=message):
        convert(source, target, **keywords)
    assert (sorted(target.parent.iterdir()) if target.parent.is_dir() else []) == before


def test_what_is_refused(exported, tmp_path):
    net, safe = exported / "model.net", exported / "model.safetensors"
    refused(net, tmp_path / "other.net", "are of one kind")
    refused(net, tmp_path / "model.pth", r"model\.pth: weights files end in \.net or \.safetensors")
    refused(net, safe, r"model\.safetensors is there already; --overwrite")
    refused(tmp_path / "none.net", tmp_path / "a" / "x.safetensors", r"not found: .*none\.net")
    refused(tmp_path / "none.safetensors", tmp_path / "x.net", r"not found: .*none\.safetensors")
    (tmp_path / "zip.safetensors").write_bytes(net.read_bytes())
    refused(
        tmp_path / "zip.safetensors", tmp_path / "x.net", r"zip\.safetensors is a file of torch; its name must end in \.net"
    )
    (tmp_path / "safe.net").write_bytes(safe.read_bytes())
    refused(
        tmp_path / "safe.net",
        tmp_path / "x.safetensors",
        r"safe\.net is a safetensors file; its name must end in \.safetensors",
    )
    safetensors_torch.save_file({"layer.weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    refused(tmp_path / "foreign.safetensors", tmp_path / "x.net", r"foreign\.safetensors: 'mean' is absent.*layer\.weight")
    safetensors_torch.save_file({"mean": torch.zeros(2, dtype=torch.int32)}, tmp_path / "whole.safetensors")
    refused(tmp_path / "whole.safetensors", tmp_path / "x.net", r"whole\.safetensors: 'mean' holds torch\.int32")
    safetensors_torch.save_file({"mean": torch.zeros(2)}, tmp_path / "r.safetensors", metadata={RECORD_TEXT: "{"})
    with pytest.raises(ValueError, match=r"the record in .*r\.safetensors is damaged"):
        record_of(tmp_path / "r.safetensors")


def test_weights_that_are_not_their_records_are_refused(tmp_path):
    save_network(TransPoseNet(Architecture(tiny=True, uncertainty="none")), tmp_path / "model.net")
    write_sidecar(tmp_path / "model.net", make_record("scene-coord-run"))
    message = r"not what its record says: the weights have uncertainty='none' instead of 'mle'"
    refused(tmp_path / "model.net", tmp_path / "model.safetensors", message)


def test_the_command(exported, tmp_path, repository):
    command = [sys.executable, str(repository / "script_clean_validation" / "convert_weights.py")]
    words = [*command, str(exported / "model.net"), str(tmp_path / "model.safetensors")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith("model.safetensors: with the record of scene-coord-run\n")
    again = subprocess.run(words, capture_output=True, text=True)
    assert again.returncode == 2 and again.stderr.startswith("error: ") and len(again.stderr.splitlines()) == 1
