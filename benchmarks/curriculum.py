#!/usr/bin/env python3
"""Does each part of the curriculum pay? `python benchmarks/curriculum.py demo --work_dir DIR [--seeds 1 2 3]`

Trains, for every seed and with the same number of images for the network of coordinates in each row: real pairs alone,
pre-training alone (zero-shot), pre-training and fine-tuning, and the fused networks of coord, of coord + depth + normal and
of these and semantics. Every checkpoint is selected on the validation section; the test section is looked at once, at the
end. Work that is done is passed over, so an interrupted call goes on. Prints one table over all seeds and writes it as
DIR/curriculum.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPE = " ".join((ROOT / "setup" / "miniature_recipe.txt").read_text().split())
SECTION = "test_drone_real"


def call(environment: dict[str, str], *command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, env=os.environ | environment)


def image_count(section: Path) -> int:
    return sum(1 for _ in (section / "rgb").iterdir())


def train_seed(args: argparse.Namespace, seed: int) -> dict[str, Path]:
    """Everything of one seed; returns the selected weights of each row."""
    scene = args.datasets_dir / args.scene
    sim, pairs = image_count(scene / "train_sim"), 2 * image_count(scene / "train_drone_real")
    finetune_images = args.finetune_epochs * (sim + pairs)
    coord_images = args.pretrain_epochs * sim + finetune_images
    pairs_epochs = round((coord_images + args.decoder_epochs * pairs) / pairs)
    work = args.work_dir / f"seed{seed}"
    environment = {
        "DATASETS_DIR": str(args.datasets_dir), "OUTPUT_DIR": str(work / "output"), "WEIGHTS_DIR": str(work / "weights"),
        "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "BATCH_SIZE": "8", "IMAGE_HEIGHT": str(args.image_height),
        "EXTRA_ARGS": f"--seed {seed}", "JOBS": str(args.jobs),
        "PRETRAIN_EPOCHS": str(args.pretrain_epochs), "PRETRAIN_LR": "0.0008", "PRETRAIN_ARGS": RECIPE,
        "PRETRAIN_MIN_CKPT_ITER": str(args.pretrain_epochs * sim * 4 // 5),
        "FINETUNE_EPOCHS": str(args.finetune_epochs), "FINETUNE_LR": "0.0005",
        "FINETUNE_ARGS": f"{RECIPE} --sim_data_chunk 1.0 --real_share 0.5",
        "FINETUNE_MIN_CKPT_ITER": str(finetune_images * 4 // 5),
        "DECODER_EPOCHS": str(args.decoder_epochs), "DECODER_LR": "0.0005", "DECODER_ARGS": RECIPE,
        "DECODER_MIN_CKPT_ITER": str(args.decoder_epochs * pairs * 4 // 5),
    }  # fmt: skip
    training, validation = ROOT / "script_clean_training", ROOT / "script_clean_validation"
    call(environment, training / "run_crossloc.sh", args.scene, "in_place", "TINY")

    weights = work / "weights"
    finetuned = weights / "encoders-finetuning" / args.scene / "in_place" / "coord" / "model-sc-1.00-rc-1.00.net"
    alone = {"EPOCHS": str(pairs_epochs), "LR": "0.0008", "EXTRA_ARGS": f"{RECIPE} --seed {seed}"}
    call(environment | alone, training / "encoder_pretrain_pairwise_only.sh", args.scene, "coord", "TINY")
    low = {"MIN_CKPT_ITER": str(pairs_epochs * pairs * 4 // 5), "EXTRA_ARGS": ""}
    call(environment | low, validation / "validate_encoder_pretrain_pairwise_only.sh", args.scene, "coord", "TINY")

    # The published command wants all weights, whichever encoders it fuses.
    encoders = []
    for task in ("coord", "depth", "normal", "semantics"):
        encoders += [f"--{task}_weight", finetuned.parents[1] / task / finetuned.name]
    data = ["--datasets_dir", args.datasets_dir, "--task", "coord"]
    runs = ["--search_dir", work / "output", "--stage", "decoder", "--size", "tiny", "--keywords", "coordonly"]
    low_iter = ["--min_ckpt_iter", environment["DECODER_MIN_CKPT_ITER"]]
    call(
        environment, sys.executable, ROOT / "finetune_decoder_single_task.py", args.scene, *data, "--encoders", "coord",
        *encoders, "--reuse_coord_encoder", "--unfreeze_coord_encoder", "--session", "coordonly",
        "--sim_data_chunk", "0", "--uncertainty", "mle", "--tiny", "--epochs", args.decoder_epochs, "--batch_size", "8",
        *RECIPE.split(), "--learningrate", "0.0005", "--image_height", args.image_height, "--seed", seed, "--auto_resume",
        "--output_dir", work / "output",
    )  # fmt: skip
    call(
        environment, sys.executable, ROOT / "test_single_task.py", args.scene, *data, "--section", "validation",
        *runs[:-2], *low_iter, "--resume", *runs[-2:],
    )  # fmt: skip
    call(
        environment, sys.executable, validation / "select_ckpt.py", "--scene", args.scene, "--task", "coord",
        "--section", "validation", *runs[:-2], *low_iter, "--export", weights / "decoders" / "{name}" / "model.net", *runs[-2:],
    )  # fmt: skip

    decoders = {folder.name: folder / "model.net" for folder in (weights / "decoders").iterdir()}

    def fused(*, semantics: bool) -> Path:
        names = [n for n in decoders if "depth_normal" in n and ("semantics" in n) == semantics]
        if len(names) != 1:
            raise ValueError(f"{weights / 'decoders'}: one fused network expected, found {names}")
        return decoders[names[0]]

    rows = {
        "real pairs alone": weights / "encoders-pretraining" / f"{args.scene}-pairwise-only" / "in_place" / "coord"
        / "model-sc-0.00-rc-1.00.net",
        "pre-trained (zero-shot)": weights / "encoders-pretraining" / args.scene / "coord" / "model-sc-1.00.net",
        "pre-trained + fine-tuned": finetuned,
        "  + decoder stage, coord alone": next(path for name, path in decoders.items() if "coordonly" in name),
        "fused coord + depth + normal": fused(semantics=False),
        "fused + semantics": fused(semantics=True),
    }  # fmt: skip
    for path in rows.values():
        call(
            environment, sys.executable, ROOT / "test_single_task.py", args.scene, *data, "--section", SECTION,
            "--network_in", path, "--resume",
        )  # fmt: skip
    return rows


def figures_of(weights: Path) -> dict[str, float]:
    """Median errors and shares of one test, from its report."""
    report = json.loads((weights.parent / f"{SECTION}_{weights.name}_metrics.json").read_text())
    images = report["images"]

    def share(metres: float, degrees: float) -> float:
        return 100 * statistics.mean(
            image["position_error_m"] <= metres and image["rotation_error_deg"] <= degrees for image in images
        )

    return {
        "position_m": report["figures"]["position_error_median_m"]["value"],
        "rotation_deg": report["figures"]["rotation_error_median_deg"]["value"],
        "within 1m1deg, %": share(1, 1),
        "within 5m5deg, %": share(5, 5),
        "within 10m7deg, %": share(10, 7),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene")
    parser.add_argument("--datasets_dir", type=Path, default=ROOT / "datasets")
    parser.add_argument("--work_dir", type=Path, required=True, help="runs and weights of every seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--pretrain_epochs", type=int, default=6)
    parser.add_argument("--finetune_epochs", type=int, default=4)
    parser.add_argument("--decoder_epochs", type=int, default=25)
    parser.add_argument("--image_height", type=int, default=112)
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    args.datasets_dir, args.work_dir = args.datasets_dir.resolve(), args.work_dir.resolve()

    table: dict[str, list[dict[str, float]]] = {}
    for seed in args.seeds:
        for row, weights in train_seed(args, seed).items():
            table.setdefault(row, []).append(figures_of(weights))
    names = list(next(iter(table.values()))[0])
    print(f"{'row':34}" + "".join(f"{name:>34}" for name in names))
    for row, seeds in table.items():
        cells = (f"{statistics.median(s[n] for s in seeds):.2f} ({', '.join(f'{s[n]:.2f}' for s in seeds)})" for n in names)
        print(f"{row:34}" + "".join(f"{cell:>34}" for cell in cells))
    (args.work_dir / "curriculum.json").write_text(json.dumps({"seeds": args.seeds, "rows": table}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
