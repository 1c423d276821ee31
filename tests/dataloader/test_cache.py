"""The cache of decoded samples: the same bits, shared by loader processes, never beyond its budget."""

import copy
import dataclasses
import multiprocessing

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import dataloader.section as section_module
from dataloader.cache import SampleCache
from dataloader.section import SectionDataset

# Of a sample of the plane sections: its arrays, each from a place on that is a multiple of 64 bytes, and their headers.
HEADER, IMAGE, MAP, VALID, MATRICES, STRIDE = 256, 64 * 96 * 3, 8 * 12 * 3 * 4, 128, 128 + 128 + 128, 64
ONE = HEADER + IMAGE + MAP + VALID + MATRICES + STRIDE
TABLE = 8 * 4


def same(a, b):
    for part in ("view", "label"):
        for field in dataclasses.fields(getattr(a, part)):
            x, y = (getattr(getattr(s, part), field.name) for s in (a, b))
            equal = torch.equal if isinstance(x, torch.Tensor) else np.array_equal
            assert type(x) is type(y) and equal(x, y) and getattr(x, "dtype", 0) == getattr(y, "dtype", 0), field.name
    assert a.index == b.index


@pytest.mark.parametrize("task", ["coord", "depth", "semantics"])
def test_a_kept_sample_is_the_decoded_one_to_the_bit(plane_section, monkeypatch, task):
    section = plane_section(3, sky_rows=1)
    plain, kept = (SectionDataset([section], task, 48, cache_bytes=size) for size in (0, 1 << 22))
    expected = [plain[index] for index in (0, 1, 2, 4)]
    for _ in range(2):
        for index, sample in zip((0, 1, 2, 4), expected, strict=True):
            same(kept[index], sample)
        monkeypatch.setattr(section_module, "decode_image", None)  # the second time nothing is decoded
    assert plain.cache.used == 0


def test_the_cache_keeps_what_fits_and_nothing_else(plane_section):
    section = plane_section(3)
    dataset = SectionDataset([section], "coord", 64, cache_bytes=TABLE + 2 * ONE + ONE - 1)
    first = [dataset[index] for index in range(3)]
    assert dataset.cache.used == 2 * ONE
    for file in (section / "rgb").iterdir():
        file.unlink()
    for index in (0, 1, 4):
        assert np.array_equal(dataset[index].view.image_HW3, first[index % 3].view.image_HW3)
        assert dataset[index].index == index
    with pytest.raises(FileNotFoundError, match="view_002"):
        dataset[2]


@pytest.mark.parametrize("budget", [0, 8, TABLE])
def test_a_budget_that_holds_nothing_is_no_cache(budget):
    cache = SampleCache(3, budget)
    cache.put(0, [np.zeros(4)])
    assert cache.get(0) is None and cache.used == 0


def test_more_than_the_machine_has_is_one_line():
    with pytest.raises(MemoryError, match=r"no room for 1073741824.0 GiB of decoded images, --cache_gb"):
        SampleCache(1, 1 << 60)


def test_loader_processes_share_what_one_of_them_decoded(plane_section):
    if multiprocessing.get_start_method() != "fork":
        pytest.skip("loaders of this Python are not forked: each begins with an empty cache")
    section = plane_section(4)
    dataset = SectionDataset([section], "coord", 64, cache_bytes=1 << 22)

    def epoch(workers):
        return [sample for batch in DataLoader(dataset, 2, num_workers=workers, collate_fn=list) for sample in batch]

    decoded = epoch(workers=2)
    assert dataset.cache.used == 4 * ONE  # this process sees what the loaders wrote
    for file in (section / "rgb").iterdir():
        file.unlink()
    for workers in (0, 1):
        for a, b in zip(epoch(workers), decoded, strict=True):
            same(a, b)


def test_a_process_that_is_not_forked_begins_with_nothing(plane_section):
    dataset = SectionDataset([plane_section(2)], "coord", 64, cache_bytes=1 << 22)
    dataset[0]
    elsewhere = copy.deepcopy(dataset)  # by the same protocol as a pickle
    assert elsewhere.cache.get(0) is None and elsewhere.cache.capacity == 0
    same(elsewhere[0], dataset[0])
