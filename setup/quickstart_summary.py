"""Prints, per test image and in the median, what fine-tuning on real photos changed.

    python setup/quickstart_summary.py BEFORE.net AFTER.net --section test_drone_real

Reads the CSV tables that `test_single_task.py` left beside the weights.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

COLUMNS = {"translation_error_m": "position_m", "rotation_error_deg": "rotation_deg"}


def errors_of(weights: Path, section: str) -> pd.DataFrame:
    """Errors per image (columns position_m, rotation_deg), indexed by stem."""
    table = weights.parent / f"{section}_{weights.name}_task_coord.csv"
    if not table.is_file():
        raise FileNotFoundError(f"no evaluation at {table}; run test_single_task.py on {weights} first")
    return pd.read_csv(table, index_col="stem")[list(COLUMNS)].rename(columns=COLUMNS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--section", default="test_drone_real")
    parser.add_argument("--max_rows", type=int, default=20, help="images listed; the medians are over all")
    args = parser.parse_args()
    try:
        before, after = errors_of(args.before, args.section), errors_of(args.after, args.section)
    except (OSError, KeyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    both = pd.concat({"zero-shot": before, "fine-tuned": after}, axis=1)
    both.loc["MEDIAN"] = both.median()
    shown = pd.concat([both.iloc[:-1].head(args.max_rows), both.tail(1)])
    print(shown.to_string(float_format=lambda v: f"{v:.2f}", na_rep="none"))
    gain = both.loc["MEDIAN", ("zero-shot", "position_m")] / both.loc["MEDIAN", ("fine-tuned", "position_m")]
    print(f"fine-tuning made the median position error {gain:.1f} times smaller")
    return 0


if __name__ == "__main__":
    sys.exit(main())
