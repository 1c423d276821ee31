"""Prints, per test image and in the median, what fine-tuning on real photos changed.

    python setup/quickstart_summary.py BEFORE.net AFTER.net --section test_drone_real

Reads the CSV tables that `test_single_task.py` left beside the weights.
"""

import argparse
import math
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

COLUMNS = {"translation_error_m": "position_m", "rotation_error_deg": "rotation_deg"}


def errors_of(weights: Path, section: str) -> pd.DataFrame:
    """Errors per image (columns position_m, rotation_deg), indexed by stem.

    Raises:
        FileNotFoundError: there is no evaluation on the section.
        ValueError: the last one is of other weights than the file holds now.
    """
    from evaluation.reports import read_evaluations, results_path, section_file, twin_of, weights_fingerprint

    table, twin = section_file(weights, section, "task_coord.csv"), twin_of(results_path(weights, "coord"))
    entries = [e for e in read_evaluations(twin) if e.get("section") == section] if twin.is_file() else []
    if not entries or not table.is_file():
        raise FileNotFoundError(f"no evaluation at {table}; run test_single_task.py on {weights} first")
    if entries[-1].get("weights_fingerprint") != weights_fingerprint(weights):
        raise ValueError(f"{weights} was replaced after its evaluation on {section}; run test_single_task.py on it again")
    return pd.read_csv(table, index_col="stem")[list(COLUMNS)].rename(columns=COLUMNS)


def comparison(before: pd.DataFrame, after: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Both side by side with a row of medians, and the sentence about them.

    Raises:
        ValueError: they are of different images.
    """
    if set(before.index) != set(after.index):
        raise ValueError(f"the two were evaluated on different images: {len(before)} and {len(after)}; evaluate both again")
    both = pd.concat({"zero-shot": before, "fine-tuned": after}, axis=1)
    both.loc["MEDIAN"] = both.median()
    medians = [float(both.loc["MEDIAN", (name, "position_m")]) for name in ("zero-shot", "fine-tuned")]
    if not math.isfinite(medians[1]):
        return both, "after fine-tuning there is no pose for half of the images"
    if not math.isfinite(medians[0]):
        return both, "before fine-tuning there was no pose for half of the images"
    return both, f"fine-tuning made the median position error {medians[0] / medians[1]:.1f} times smaller"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--section", default="test_drone_real")
    parser.add_argument("--max_rows", type=int, default=20, help="images listed; the medians are over all")
    args = parser.parse_args()
    try:
        both, sentence = comparison(errors_of(args.before, args.section), errors_of(args.after, args.section))
    except (OSError, KeyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shown = pd.concat([both.iloc[:-1].head(args.max_rows), both.tail(1)])
    print(shown.to_string(float_format=lambda v: f"{v:.2f}", na_rep="none"))
    print(sentence)
    return 0


if __name__ == "__main__":
    sys.exit(main())
