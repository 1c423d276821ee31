"""Decoded samples in memory that a data set and all its loader processes share, within a budget of bytes."""

from __future__ import annotations

import math
import mmap
import multiprocessing
from collections.abc import Sequence

import numpy as np

_DTYPES = (np.uint8, np.bool_, np.int64, np.float32, np.float64)
_MOST_DIMENSIONS = 3
# Of a sample: nothing kept, or somebody is writing; otherwise one more than where it starts.
_ABSENT, _CLAIMED = 0, -1
_ALIGNMENT = 64


class SampleCache:
    """Arrays of numbered samples; what was put in stays, and once the budget is used up nothing more comes in.

    Shuffled epochs want every sample once each: to drop one for another would gain nothing, and the least recently used
    one is the next to be wanted. The memory is anonymous and shared: processes forked from this one see the same bytes (not
    those of other start methods, which begin with nothing and keep nothing), it is taken as it is filled, and the limits of
    /dev/shm do not apply.

    Args:
        samples: how many there are.
        budget: bytes that the cache may take, its table included.
    Raises:
        MemoryError: the system refuses that much.
    """

    def __init__(self, samples: int, budget: int):
        self._samples = samples
        # The last entry is where the free part of the arena starts.
        table_bytes = 8 * (samples + 1)
        self.capacity = max(0, budget - table_bytes)
        if not self.capacity:
            return
        self._lock = multiprocessing.Lock()
        self._starts = np.frombuffer(mmap.mmap(-1, table_bytes), np.int64)
        try:
            self._arena = np.frombuffer(mmap.mmap(-1, self.capacity), np.uint8)
        except (OSError, OverflowError) as error:
            raise MemoryError(f"no room for {budget / 2**30:.1f} GiB of decoded images, --cache_gb ({error})") from None

    def __reduce__(self) -> tuple:
        return SampleCache, (self._samples, 0)

    @property
    def used(self) -> int:
        """Bytes that samples take."""
        return int(self._starts[-1]) if self.capacity else 0

    def get(self, sample: int) -> list[np.ndarray] | None:
        """The arrays of a sample, to be read only; None when it is not there."""
        if not self.capacity:
            return None
        with self._lock:
            start = int(self._starts[sample]) - 1
        if start < 0:
            return None
        (count,) = self._read(start, np.int64, (1,))
        headers = self._read(start + 8, np.int64, (int(count), 1 + _MOST_DIMENSIONS)).tolist()
        arrays, place = [], start + _header_bytes(len(headers))
        for code, *shape in headers:
            arrays.append(self._read(place, _DTYPES[code], tuple(n for n in shape if n >= 0)))
            place += _padded(arrays[-1].nbytes)
        return arrays

    def put(self, sample: int, arrays: Sequence[np.ndarray]) -> None:
        """Keeps a copy of a sample's arrays, unless it is there or does not fit."""
        if not self.capacity:
            return
        size = _header_bytes(len(arrays)) + sum(_padded(array.nbytes) for array in arrays)
        with self._lock:
            start = int(self._starts[-1])
            if self._starts[sample] != _ABSENT or start + size > self.capacity:
                return
            self._starts[sample] = _CLAIMED
            self._starts[-1] = start + size
        self._read(start, np.int64, (1,))[:] = len(arrays)
        headers = self._read(start + 8, np.int64, (len(arrays), 1 + _MOST_DIMENSIONS))
        place = start + _header_bytes(len(arrays))
        for header, array in zip(headers, arrays, strict=True):
            header[:] = [_DTYPES.index(array.dtype.type), *array.shape, *[-1] * (_MOST_DIMENSIONS - array.ndim)]
            self._read(place, array.dtype.type, array.shape)[...] = array
            place += _padded(array.nbytes)
        with self._lock:
            self._starts[sample] = start + 1

    def _read(self, start: int, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        """A view of the arena's bytes from a place on."""
        size = np.dtype(dtype).itemsize * math.prod(shape)
        return self._arena[start : start + size].view(dtype).reshape(shape)


def _header_bytes(arrays: int) -> int:
    """Bytes of how many arrays there are, and of the type and shape of each."""
    return _padded(8 * (1 + arrays * (1 + _MOST_DIMENSIONS)))


def _padded(size: int) -> int:
    """Bytes up to where the next array may start."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT
