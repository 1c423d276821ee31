"""The order of samples: by position in images, resumable at any of them."""

import pytest

from dataloader.sampler import RunBatchSampler
from dataloader.seeding import generator_of


def whole_run(**options):
    return list(RunBatchSampler([False] * 10, 4, seed=1, epochs=3, **options))


def test_an_epoch_shows_every_sample_once_in_an_order_of_its_own():
    whole = whole_run()
    assert [len(batch) for batch in whole] == [4, 4, 2] * 3
    epochs = [[index for batch in whole[3 * e : 3 * e + 3] for index in batch] for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0] and epochs[0] != list(range(10))
    sampler = RunBatchSampler([False] * 10, 4, seed=1, epochs=3)
    assert [sampler.order_of(e) for e in range(3)] == epochs and sampler.images_per_epoch == 10
    assert whole != list(RunBatchSampler([False] * 10, 4, seed=2, epochs=3))


@pytest.mark.parametrize("start", range(31))
def test_a_run_continues_at_any_image_on_the_grid_of_its_epoch(start):
    whole = whole_run()
    rest = whole_run(start_images=start)
    flat = [index for batch in whole for index in batch]
    assert [index for batch in rest for index in batch] == flat[start:]
    # Batches end where those of the uninterrupted run end.
    ends = {sum(map(len, whole[: n + 1])) for n in range(len(whole))}
    position = start
    for batch in rest:
        position += len(batch)
        assert position in ends
    assert len(RunBatchSampler([False] * 10, 4, seed=1, epochs=3, start_images=start)) == len(rest)


def test_the_order_does_not_depend_on_the_batch_size():
    flat = [[i for b in RunBatchSampler([False] * 10, size, seed=1, epochs=2) for i in b] for size in (1, 3, 10, 16)]
    assert all(order == flat[0] for order in flat)


def test_a_real_share_repeats_few_photos_and_covers_all_synthetic_images():
    is_real = [True] * 2 + [False] * 18
    sampler = RunBatchSampler(is_real, 5, seed=1, epochs=4, real_share=0.5)
    epochs = [sampler.order_of(e) for e in range(4)]
    assert all(sum(i < 2 for i in order) == 10 and len(order) == 20 for order in epochs)
    shown = [sum(order.count(i) for order in epochs) for i in range(20)]
    assert shown[:2] == [20, 20] and max(shown[2:]) - min(shown[2:]) <= 1  # evenly over the epochs
    assert any(order[:10] != sorted(order[:10]) for order in epochs) and len({tuple(order) for order in epochs}) == 4


def test_repeated_photos_are_told_apart_by_their_draws():
    sampler = RunBatchSampler([True] * 2 + [False] * 18, 5, seed=1, epochs=1, real_share=0.5)
    draws = [draw for batch in sampler for draw in batch]
    assert [draw % 20 for draw in draws] == sampler.order_of(0)
    assert len(set(draws)) == 20 and {draw for draw in draws if draw % 20 == 0} == {0, 20, 40, 60, 80}
    assert {draw for draw in draws if draw % 20 == 1} == {1, 21, 41, 61, 81}


@pytest.mark.parametrize("share, photos", [(0.01, 1), (0.3, 6), (0.99, 19)])
def test_a_share_never_leaves_one_kind_out(share, photos):
    sampler = RunBatchSampler([True] * 2 + [False] * 18, 5, seed=1, epochs=1, real_share=share)
    assert sum(i < 2 for i in sampler.order_of(0)) == photos


@pytest.mark.parametrize(
    "is_real, options, said",
    [
        ([], {}, "no samples"),
        ([True], {"batch_size": 0}, "batch size must be at least 1, got 0"),
        ([True], {"start_images": -1}, "-1"),
        ([True, False], {"real_share": 0.0}, r"between 0 and 1, got 0\.0"),
        ([True, False], {"real_share": 1.0}, r"between 0 and 1, got 1\.0"),
        ([True, True], {"real_share": 0.5}, "both real and synthetic"),
        ([False, False], {"real_share": 0.5}, "both real and synthetic"),
    ],
)
def test_impossible_orders_are_refused(is_real, options, said):
    with pytest.raises(ValueError, match=said):
        RunBatchSampler(is_real, options.pop("batch_size", 4), seed=1, epochs=1, **options)


def test_generators_are_named_by_all_their_numbers_and_in_their_order():
    names = [(0, 1), (1, 0), (0, 1, 2), (0, 1, 3), (0, 2, 1), (0, 12), (0, 1, 0)]
    first = [generator_of(*name).initial_seed() for name in names]
    assert len(set(first)) == len(names)
    assert generator_of(7, 1, 2).initial_seed() == generator_of(7, 1, 2).initial_seed()
