import json
import multiprocessing
import os

import numpy as np
import pytest
import torch

from records.files import check_writable, exclusive, locked, plain, read_json, replacing, write_json
from records.tensors import load_tensors, save_tensors


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.suffix == ".txt" and temporary.name.startswith(".")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_errors_name_the_file_and_not_its_temporary(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*/none/x\.json'$"):
        write_json(tmp_path / "none/x.json", {})


def test_folders_that_take_no_file_are_found_out_without_making_them(tmp_path):
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "new/folder", "answers")
    assert not (tmp_path / "new").exists()
    with pytest.raises(PermissionError, match=r"cannot write answers into .*/file: it is a file$"):
        check_writable(tmp_path / "file", "answers")
    with pytest.raises(PermissionError, match=r"cannot write answers into .*/file/new: .*/file is a file$"):
        check_writable(tmp_path / "file/new", "answers")


def test_json_form():
    value = {"a": (1, np.float32(0.5)), "b": float("nan"), "c": os.path, "d": True}
    del value["c"]
    assert plain(value) == {"a": [1, 0.5], "b": None, "d": True}


def test_json_files_name_themselves(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1.5, float("inf")]})
    assert read_json(tmp_path / "a.json", "thing") == {"x": [1.5, None]}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ValueError, match="thing .*b.json is not valid JSON"):
        read_json(tmp_path / "b.json", "thing")
    with pytest.raises(FileNotFoundError, match="thing .*c.json"):
        read_json(tmp_path / "c.json", "thing")


def _count(path, times):
    for _ in range(times):
        with locked(path):
            number = json.loads(path.read_text())
            path.write_text(json.dumps(number + 1))


def test_a_lock_keeps_processes_apart(tmp_path):
    path = tmp_path / "n.json"
    path.write_text("0")
    processes = [multiprocessing.get_context("fork").Process(target=_count, args=(path, 50)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert path.read_text() == "150"


def test_an_exclusive_lock_refuses_at_once(tmp_path):
    path = tmp_path / "run"
    with exclusive(path, "taken"), pytest.raises(BlockingIOError, match="taken"), exclusive(path, "taken"):
        pass
    with exclusive(path, "taken"):
        pass


def test_tensor_files(tmp_path):
    save_tensors(tmp_path / "a.pt", {"x": torch.arange(3)})
    assert torch.equal(load_tensors(tmp_path / "a.pt", "state")["x"], torch.arange(3))
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:-40])
    with pytest.raises(ValueError, match="state .*a.pt cannot be read"):
        load_tensors(tmp_path / "a.pt", "state")
    with pytest.raises(FileNotFoundError, match="state not found"):
        load_tensors(tmp_path / "b.pt", "state")
    with pytest.raises(OSError, match="cannot write .*none/a.pt"):
        save_tensors(tmp_path / "none" / "a.pt", {})


def test_a_flipped_byte_is_noticed(tmp_path):
    save_tensors(tmp_path / "a.pt", {"x": torch.zeros(5000)})
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        load_tensors(tmp_path / "a.pt", "state")


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save(Evil(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        load_tensors(tmp_path / "a.pt", "state")
    assert not (tmp_path / "harm").exists()
