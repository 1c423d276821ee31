"""What is said of weights that are not this family's: names, shapes and numbers."""

from __future__ import annotations

import pytest
import torch

from networks import Architecture, TransPoseNet, architecture_of
from networks.architecture import _some, check_entries
from networks.safetensors_file import read_texts
from networks.weights import load_state_dict


def weights(**changes):
    """A state dict of zeros; None takes an entry out."""
    state = {key: torch.zeros(value.shape) for key, value in TransPoseNet(Architecture(tiny=True)).state_dict().items()}
    for key, value in changes.items():
        state[key.replace("__", ".")] = value
    return {key: value for key, value in state.items() if value is not None}


def test_some_names_of_many():
    assert [_some(list("abcdef")[:n]) for n in (0, 1, 4, 5)] == ["(none)", "(a)", "(a, b, c, d)", "(a, b, c, d, ...)"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mean": None}, r"^'mean' is absent: these are not the weights of a TransPoseNet; found \d+ tensors \(decoder"),
        ({"mean": torch.zeros(3, 1)}, r"^'mean' has shape \(3, 1\); expected 1 dimensions$"),
        ({"decoder__fc1__weight": torch.zeros(77, 5, 1, 1)},
         r"^'decoder.fc1.weight' has 77 channels; expected one of \[128, 512\]$"),
        ({"decoder__fc3__weight": torch.zeros(5, 128, 1, 1)}, r"has 5 rows for 3 task channels; expected that or one more$"),
        ({"decoder__fc3__weight": torch.zeros(2, 128, 1, 1)}, r"has 2 rows for 3 task channels"),
        ({"mlr_encoder_2__conv1__weight": torch.zeros(1, 1, 1, 1)},
         r"^encoder branches \[2\] are not numbered 1, 2, \.\.\.$"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_weights(changes, message):
    with pytest.raises(ValueError, match=message):
        architecture_of(weights(**changes))


def test_entries_by_name_and_shape():
    shapes = {"a": torch.Size([2, 3]), "b": torch.Size([4])}
    check_entries({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, shapes)
    with pytest.raises(ValueError, match=r"of 2 expected tensors 1 are missing \(b\), 1 are foreign \(c\)$"):
        check_entries({"a": torch.zeros(2, 3), "c": torch.zeros(4)}, shapes)
    with pytest.raises(ValueError, match=r"^'a' has shape \(3, 2\), expected \(2, 3\)$"):
        check_entries({"a": torch.zeros(3, 2), "b": torch.zeros(4)}, shapes)


def test_a_safetensors_file_that_is_not_there(tmp_path):
    pytest.importorskip("safetensors", reason="the package safetensors is not installed")
    with pytest.raises(FileNotFoundError, match=r"^weights file not found: .*none\.safetensors$"):
        read_texts(tmp_path / "none.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "torch.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(ValueError, match=r"torch\.safetensors is a file of torch; its name must end in \.net$"):
        read_texts(tmp_path / "torch.safetensors")
    with pytest.raises(ValueError, match=r"text\.safetensors is not a safetensors file, or a damaged one \("):
        read_texts(tmp_path / "text.safetensors")


def test_a_file_of_something_else_is_described(tmp_path):
    path = tmp_path / "w.net"
    for content, said in (
        ({name: index for index, name in enumerate("abcdefg")}, r"'a' is a int \(7 entries: a, b, c, d, e\); "),
        ({"a": [1, 2]}, r"'a' is a list of 2 entries \(1 entries: a\); "),
        ({1: torch.zeros(1)}, r"1 is a Tensor \(1 entries: 1\); "),
        ({}, "it holds a dict of 0 entries; "),
        ((1, 2), "it holds a tuple of 2 entries; "),
        (7, "it holds a int; "),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=rf"w\.net is not a weights file: {said}"):
            load_state_dict(path)
    for value, said in (
        (torch.tensor([1.0, float("nan")]), "'a' holds NaN or infinite values$"),
        (torch.tensor([1]), "'a' holds torch.int64 in layout torch.strided; expected plain real numbers"),
        (torch.zeros(2).to_sparse(), "'a' holds torch.float32 in layout torch.sparse_coo"),
    ):
        torch.save({"a": value}, path)
        with pytest.raises(ValueError, match=said):
            load_state_dict(path)
