"""Samples per second of set-up, checking and reading, on full-size look-alikes of the raw benchmark.

    python benchmarks/dataset_throughput.py [--samples 40] [--workers 2]

Rendering has a benchmark of its own, `benchmarks/datagen_throughput.py`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from threads import configure_threads


def main() -> int:
    cores = configure_threads()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=40, help="Latin-hypercube renders (%(default)s)")
    parser.add_argument("--workers", type=int, default=cores, help="threads and processes (%(default)s)")
    args = parser.parse_args()
    from datagen.benchmark.lookalike import LookalikeSettings, build_lookalike
    from datagen.benchmark.options import SetupOptions
    from datagen.benchmark.setup import set_up
    from dataloader.check.run import check_data
    from dataloader.packing import pack

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        raw = build_lookalike(LookalikeSettings("urbanscape", args.samples, 10), place / "raw", workers=args.workers)
        for stride in (8, 1):
            output = place / ("urbanscape" if stride == 8 else "urbanscape-fullsize")
            options = SetupOptions(raw, output, stride=stride, workers=args.workers)
            _report(f"set-up, stride {stride}", args.samples + 40, lambda o=options: set_up("urbanscape", o, place))
        section = place / "urbanscape" / "train_sim"
        count = sum(1 for _ in (section / "rgb").iterdir())
        _report("check", count, lambda: check_data(section, workers=args.workers))
        for name, stored in (("files", lambda: None), ("packed", lambda: pack(section))):
            stored()
            for task in ("coord", "semantics"):
                _report(f"reading {task}, {name}", 3 * count, lambda task=task: _read(section, task, 3))
    return 0


def _read(section: Path, task: str, epochs: int) -> None:
    """All samples, one core, as a loader process does."""
    from dataloader.section import SectionDataset

    dataset = SectionDataset([section], task, 480)
    for _ in range(epochs):
        for position in range(len(dataset)):
            dataset[position]


def _report(name: str, samples: int, work: Callable[[], object]) -> None:
    start, busy = time.perf_counter(), time.process_time()
    work()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    print(f"{name}: {samples / seconds:.1f} samples/s ({1000 * busy / samples:.1f} ms of processor time each)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
