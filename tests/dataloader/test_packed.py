"""A packed section gives the same samples as its files, and is refused when they changed."""

import copy
import shutil

import numpy as np
import pytest
import torch

from dataloader.packed import PACKED, PackedSection, open_packed
from dataloader.packing import main, pack
from dataloader.section import SectionDataset
from tasks import TASKS


def samples(section, task, height=48):
    return list(SectionDataset([section], task, height))


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    return np.array_equal(a, b) and a.dtype == b.dtype if isinstance(a, np.ndarray) else a == b


@pytest.mark.parametrize("options", [{}, {"calibration": "60 70 45 30", "sky_rows": 2}, {"stride": 1}])
def test_samples_are_the_same_to_the_last_bit(plane_section, options, monkeypatch):
    section = plane_section(3, **options)
    before = {task: samples(section, task) for task in TASKS}
    pack(section)
    # What is read now comes from the packed file alone.
    monkeypatch.setattr("dataloader.section.read_stored", None)
    for task in TASKS:
        for old, new in zip(before[task], samples(section, task), strict=True):
            assert old.index == new.index
            for part in ("view", "label"):
                fields, others = vars(getattr(old, part)), vars(getattr(new, part))
                assert all(same(fields[name], others[name]) for name in fields)


def test_the_file_is_a_plain_npy_array_and_samples_are_copies(plane_section):
    section = plane_section(2)
    path = pack(section)
    bytes_N = np.load(path, mmap_mode="r")
    assert bytes_N.dtype == np.uint8 and bytes_N.ndim == 1 and bytes_N.nbytes + 128 == path.stat().st_size
    packed = open_packed(section)
    first = packed.read("view_000", TASKS["coord"])
    first.image_HW3[:] = 0
    first.map_Chw.zero_()
    assert packed.read("view_000", TASKS["coord"]).map_Chw.abs().max() > 0
    # A loader process opens the file itself.
    assert packed.__reduce__() == (PackedSection, (section,))
    again = copy.copy(packed)
    assert torch.equal(again.read("view_001", TASKS["depth"]).map_Chw, packed.read("view_001", TASKS["depth"]).map_Chw)


def test_a_stale_or_damaged_pack_is_refused(plane_section, capsys):
    section = plane_section(2)
    assert main([str(section)]) == 0
    assert "wrote" in capsys.readouterr().out
    (section / "poses" / "view_001.txt").write_text((section / "poses" / "view_000.txt").read_text())
    with pytest.raises(
        ValueError, match=r"was made from other files .*; remove it, or pack again: python -m dataloader.packing"
    ):
        SectionDataset([section], "coord", 48)
    assert main([str(section)]) == 0
    assert torch.equal(*(sample.label.world_from_cam_44 for sample in samples(section, "coord")))
    (section / PACKED).write_bytes((section / PACKED).read_bytes()[:-20])
    with pytest.raises(ValueError, match="cannot be read .*pack the section again"):
        SectionDataset([section], "coord", 48)


def test_what_cannot_be_packed_leaves_nothing(plane_section, capsys):
    section = plane_section(2)
    (section / "rgb" / "view_001.png").write_bytes(b"no image")
    assert main([str(section)]) == 2
    assert "error: cannot decode image" in capsys.readouterr().err
    assert not [path for path in section.iterdir() if path.is_file() and path.suffix == ".npy"]
    for name in ("init", "depth", "normal", "semantics"):
        shutil.rmtree(section / name)
    assert main([str(section)]) == 2
    assert "has no labels" in capsys.readouterr().err


def test_a_section_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such section: .*nope"):
        pack(tmp_path / "nope")
