import os
import shutil

from records import fingerprint


def make(folder):
    (folder / "rgb").mkdir(parents=True)
    (folder / "poses").mkdir()
    for k in range(3):
        (folder / "rgb" / f"{k}.png").write_bytes(bytes([k] * 100))
        (folder / "poses" / f"{k}.txt").write_text(f"{k}")
    return folder


def test_equal_contents_have_equal_fingerprints_wherever_they_lie(tmp_path):
    a = make(tmp_path / "a")
    shutil.copytree(a, tmp_path / "b")
    assert fingerprint.of_folder(a, ("rgb", "poses")) == fingerprint.of_folder(tmp_path / "b", ("poses", "rgb"))
    assert len(fingerprint.of_folder(a, ("rgb",))) == 16


def test_every_change_of_content_changes_it(tmp_path):
    a = make(tmp_path / "a")
    seen = {fingerprint.of_folder(a, ("rgb", "poses"))}
    (a / "rgb" / "1.png").write_bytes(bytes([9] * 100))
    seen.add(fingerprint.of_folder(a, ("rgb", "poses")))
    (a / "rgb" / "1.png").rename(a / "rgb" / "7.png")
    seen.add(fingerprint.of_folder(a, ("rgb", "poses")))
    (a / "poses" / "3.txt").write_text("")
    seen.add(fingerprint.of_folder(a, ("rgb", "poses")))
    assert len(seen) == 4


def test_a_file_replaced_with_the_same_size_and_date_is_noticed(tmp_path):
    a = make(tmp_path / "a")
    before = fingerprint.of_folder(a, ("rgb",))
    path = a / "rgb" / "0.png"
    status = path.stat()
    path.write_bytes(bytes([8] * 100))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint.of_folder(a, ("rgb",)) != before


def test_unchanged_files_are_not_read_again(tmp_path, monkeypatch):
    a = make(tmp_path / "a")
    before = fingerprint.of_folder(a, ("rgb", "poses"))
    read = []
    original = fingerprint.of_file
    monkeypatch.setattr(fingerprint, "of_file", lambda path: read.append(path.name) or original(path))
    (a / "rgb" / "2.png").write_bytes(b"other")
    assert fingerprint.of_folder(a, ("rgb", "poses")) != before and read == ["2.png"]


def test_hidden_files_and_absent_folders_do_not_count(tmp_path):
    a = make(tmp_path / "a")
    before = fingerprint.of_folder(a, ("rgb", "poses"))
    (a / "rgb" / "._0.png").write_bytes(b"x")
    (a / "rgb" / "Thumbs.db").write_bytes(b"x")
    assert fingerprint.of_folder(a, ("rgb", "poses", "init")) == before


def test_a_damaged_cache_is_made_again(tmp_path):
    a = make(tmp_path / "a")
    before = fingerprint.of_folder(a, ("rgb",))
    (a / fingerprint.CACHE_NAME).write_text("{")
    assert fingerprint.of_folder(a, ("rgb",)) == before


def test_values(tmp_path):
    assert fingerprint.of_value({"a": 1, "b": (2, 3)}) == fingerprint.of_value({"b": [2, 3], "a": 1})
    assert fingerprint.of_value({"a": 1}) != fingerprint.of_value({"a": 2})
    (tmp_path / "f").write_bytes(b"abc")
    assert fingerprint.of_file(tmp_path / "f") == "ba7816bf8f01cfea"  # SHA-256 of "abc"
