"""Names of training runs: the folder names that scripts and other people's tools look for."""

from __future__ import annotations

from training.options import TrainingOptions


def _learning_rate(rate: float) -> str:
    return f"{rate:.4f}" if rate >= 1e-4 else f"{rate:.6f}"


def run_name(options: TrainingOptions, *, epochs: int | str | None = None) -> str:
    """Folder name of a single-task run; `epochs` replaces the run's own number (for looking up its predecessor)."""
    parts = [options.scene, options.task]
    if options.session:
        parts.append(f"s{options.session}")
    if options.grayscale:
        parts.append("gray")
    parts.append("no_unc" if options.uncertainty == "none" else f"unc-{options.uncertainty.upper()}")
    if options.fullsize:
        parts.append("fullsize")
    parts.append(f"e{options.epochs if epochs is None else epochs}-lr{_learning_rate(options.learningrate)}")
    if options.real_data_chunk == 0:
        parts.append(f"sim_only-sc{options.sim_data_chunk:.2f}")
    else:
        domain = "ip" if options.real_data_domain == "in_place" else "oop"
        parts.append(f"{'real_only' if options.real_only else 'pairs'}-{domain}-rc{options.real_data_chunk:.2f}")
    if options.tiny:
        parts.append("tiny")
    if options.network_in is not None:
        parts.append("finetune")
    if options.debug:
        parts.append("DEBUG")
    return "-".join(parts)
