"""Which synthetic image comes with which photo."""

from pathlib import Path

import pytest

from dataloader.section import SectionDataset
from ddloc.pairs import Pairs, PairSampler, collate_pairs
from tests.conftest import write_plane_section


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    for name, count in (("real", 4), ("partners", 4), ("views", 7), ("few", 2)):
        write_plane_section(root / name, count, height=16, width=24)
    return {name: SectionDataset([root / name], "coord", 16) for name in ("real", "partners", "views", "few")}


def names(pairs, epoch):
    return [tuple(sample.view.stem for sample in pairs[epoch, index]) for index in range(len(pairs))]


def test_random_partners_are_a_pure_function_of_seed_and_epoch(sections):
    pairs = Pairs(sections["real"], None, sections["views"], paired_from=99, seed=1)
    assert names(pairs, 0) == names(pairs, 0) != names(pairs, 1)
    other = Pairs(sections["real"], None, sections["views"], paired_from=99, seed=2)
    assert names(other, 0) != names(pairs, 0)
    seen = {partner for epoch in range(20) for _, partner in names(pairs, epoch)}
    assert seen == {f"views/view_{i:03d}" for i in range(7)}


def test_later_epochs_are_paired_by_name(sections):
    pairs = Pairs(sections["real"], sections["partners"], sections["views"], paired_from=2, seed=1)
    assert all(Path(a).name == Path(b).name and b.startswith("partners/") for a, b in names(pairs, 2))
    assert all(b.startswith("views/") for _, b in names(pairs, 1))


def test_a_mask_never_comes_from_the_photo_itself(sections):
    pairs = Pairs(sections["real"], None, sections["real"], paired_from=99, seed=1)
    drawn = [pair for epoch in range(20) for pair in names(pairs, epoch)]
    assert all(a != b for a, b in drawn) and len(set(drawn)) == 4 * 3


def test_photos_without_partner_are_named(sections):
    with pytest.raises(ValueError, match=r"2 of 4 photos have no synthetic image of their name, such as real/view_002"):
        Pairs(sections["real"], sections["few"], None, paired_from=0, seed=1)


def test_an_epoch_is_one_pass_and_goes_on_anywhere():
    whole = [key for batch in PairSampler(5, 2, seed=3, epochs=3, start_images=0) for key in batch]
    assert len(whole) == 15 and [epoch for epoch, _ in whole] == [0] * 5 + [1] * 5 + [2] * 5
    assert all(sorted(i for e, i in whole if e == epoch) == list(range(5)) for epoch in range(3))
    assert len({tuple(i for e, i in whole if e == epoch) for epoch in range(3)}) > 1
    for start in (1, 5, 7, 14):
        assert [key for b in PairSampler(5, 2, seed=3, epochs=3, start_images=start) for key in b] == whole[start:]


def test_domains_are_stacked_apart(sections):
    pairs = Pairs(sections["real"], sections["partners"], None, paired_from=0, seed=1)
    real, partner = collate_pairs([pairs[0, 1], pairs[0, 3]])
    assert real.stems == ("real/view_001", "real/view_003") and partner.stems == ("partners/view_001", "partners/view_003")
