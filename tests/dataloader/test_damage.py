"""Damage of every kind that a file can have, what is said of it, and interruptions of the commands."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch

from dataloader.batch import transferred
from dataloader.check import __main__ as check_command
from dataloader.check.pairing import section_folders
from dataloader.check.sample import SampleFiles, inspect
from dataloader.packed import PACKED, PackedSection
from dataloader.packing import main as pack_command
from dataloader.packing import pack
from dataloader.prepare import collate, collate_views
from dataloader.section import SectionDataset, ViewDataset, stems_in


def packed_bytes(index):
    """A packed file of no sample whose index is the given text."""
    stream = io.BytesIO()
    np.save(stream, np.frombuffer(index + len(index).to_bytes(8, "little"), np.uint8))
    return stream.getvalue()


def scalar():
    stream = io.BytesIO()
    np.save(stream, np.uint8(3))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"no array", packed_bytes(b"{"), packed_bytes(b"{}"), packed_bytes(b"[]"), packed_bytes(b"\xff"), scalar(), None],
    ids=["empty", "text", "cut index", "no version", "a list", "no text", "a number", "folder"],
)
def test_every_damage_of_a_packed_file_is_one_line(tmp_path, content):
    path = tmp_path / PACKED
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"packed section .*packed\.npy cannot be read .*; remove it, or pack the section again"
    ):
        PackedSection(tmp_path)


def test_another_version_is_told(plane_section):
    section = plane_section(1)
    path = pack(section)
    index = json.dumps({"version": 2, "made_from": "", "samples": {}}).encode()
    path.write_bytes(packed_bytes(index))
    with pytest.raises(ValueError, match=r"is of version 2, not 1; pack the section again$"):
        PackedSection(section)


def test_a_folder_in_place_of_a_file_is_a_finding(plane_section):
    section = plane_section(1)
    suffixes = {"rgb": "png", "poses": "txt", "init": "dat", "semantics": "npy"}
    paths = {name: section / name / f"view_000.{suffix}" for name, suffix in suffixes.items()}
    for path in paths.values():
        path.unlink()
        path.mkdir()
    kinds = [finding.kind for finding in inspect(SampleFiles("train_sim", "view_000", paths)).findings]
    assert kinds == ["unreadable-image", "bad-pose", "unreadable-label", "unreadable-label"]


@pytest.mark.parametrize("command, module", [(check_command.main, "dataloader.check.run.check_data"),
                                             (pack_command, "dataloader.packing.pack")])  # fmt: skip
def test_an_interrupted_command(monkeypatch, capsys, command, module):
    def interrupted(*of, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, interrupted)
    assert command(["somewhere"]) == 130 and capsys.readouterr().err.startswith("interrupted")


def test_processes_of_the_check(monkeypatch, tmp_path):
    asked = []

    class Report:
        errors, findings, coverage = 0, (), None

        def as_text(self):
            return "text"

    monkeypatch.setattr("dataloader.check.run.check_data", lambda folder, **of: asked.append(of) or Report())
    monkeypatch.setattr(check_command, "configure_threads", lambda: 5)
    assert check_command.main([str(tmp_path)]) == 0 == check_command.main([str(tmp_path), "--workers", "2", "--limit", "1"])
    assert asked == [{"names": None, "limit": None, "workers": 5}, {"names": None, "limit": 1, "workers": 2}]
    Report.findings = ("warning",)
    assert check_command.main([str(tmp_path)]) == 0 and check_command.main([str(tmp_path), "--strict"]) == 1
    Report.errors = 1
    assert check_command.main([str(tmp_path)]) == 1


def test_what_is_a_section(tmp_path):
    for name in ("a/rgb", "b/poses", "c/init", "d/depth", ".e/rgb"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    assert [path.name for path in section_folders(tmp_path)] == ["a", "b", "c"]
    assert section_folders(tmp_path / "c") == [tmp_path / "c"]
    assert [path.name for path in section_folders(tmp_path, ["c", "a"])] == ["a", "c"]
    with pytest.raises(ValueError, match=r"has no sections \['x', 'y'\]; present: \['a', 'b', 'c'\]"):
        section_folders(tmp_path, ["y", "a", "x"])


def test_files_by_stem(tmp_path):
    for name in ("b.PNG", "a.jpg", ".c.png", "d.txt"):
        (tmp_path / name).touch()
    assert list(stems_in(tmp_path)) == ["a", "b"] and list(stems_in(tmp_path, {".txt"})) == ["d"]
    assert stems_in(tmp_path / "none") == {}


def test_batches_grow_to_the_size_of_other_processes(plane_section):
    raw = collate(list(SectionDataset([plane_section(2)], "coord", 64)))
    grown = raw.padded_to(70, 100, 9, 13)
    assert grown.images_BHW3.shape == (2, 70, 100, 3) and grown.maps_BChw.shape == (2, 3, 9, 13)
    assert torch.equal(grown.images_BHW3[:, :64, :96], raw.images_BHW3) and not grown.images_BHW3[:, 64:].any()
    assert torch.equal(grown.maps_BChw[:, :, :8, :12], raw.maps_BChw) and torch.equal(
        grown.valid_B1hw[:, :, :8, :12], raw.valid_B1hw
    )
    assert (
        not grown.valid_B1hw[:, :, 8:].any()
        and not grown.valid_B1hw[:, :, :, 12:].any()
        and not grown.images_BHW3[:, :, 96:].any()
    )
    assert grown.sizes == raw.sizes and grown.padded and not raw.padded
    same = raw.padded_to(64, 96, 8, 12)
    assert torch.equal(same.images_BHW3, raw.images_BHW3)


def test_brightness_is_of_every_eighth_pixel(tmp_path):
    from PIL import Image

    image_HW3 = np.zeros((24, 32, 3), np.uint8)
    image_HW3[::8, ::8] = 51
    Image.fromarray(image_HW3).save(tmp_path / "a.png")
    views = ViewDataset([tmp_path / "a.png"], 24)
    raw = collate_views([views[0]])
    assert raw.brightness_B.tolist() == pytest.approx([0.2]) and raw.brightness_B.dtype == torch.float32
    assert raw.sizes == ((24, 32),) and not raw.padded and raw.K_B33.isnan().any()


def test_small_tensors_travel_by_pinned_memory(monkeypatch):
    moved = []
    tensor = torch.zeros(2)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: moved.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, non_blocking: moved.append((str(device), non_blocking)))
    transferred(tensor, "cuda")
    transferred(tensor, torch.device("cpu"))
    transferred(torch.zeros(1, device="meta"), "cuda")
    assert moved == ["pinned", ("cuda", True), ("cpu", True), ("cuda", True)]
