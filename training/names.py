"""Names of training runs: the folder names that scripts and other people's tools look for."""

from __future__ import annotations

from training.options import DecoderOptions, RefinementOptions, TrainingOptions


def run_name(options: TrainingOptions, *, epochs: int | str | None = None) -> str:
    """Folder name of a run; `epochs` replaces the run's own number (for looking up its predecessor)."""
    if isinstance(options, DecoderOptions):
        return decoder_run_name(options, epochs=epochs)
    real = "real_only" if options.real_only else "pairs"
    return _joined(
        options.scene,
        options.task,
        *_shared(options, epochs),
        _data(options, "sim_only", real),
        "tiny" if options.tiny else "",
        "e2e" if isinstance(options, RefinementOptions) else "finetune" if options.network_in is not None else "",
        "DEBUG" if options.debug else "",
    )


def decoder_run_name(options: DecoderOptions, *, epochs: int | str | None = None) -> str:
    """Folder name of a decoder run."""
    synthetic = "zero_shot" if "-ft0.00" in options.session else "sim_only"
    real = "real_only" if options.real_only else "pairwise"
    return _joined(
        options.scene,
        options.task,
        _encoders(options),
        *_shared(options, epochs),
        _data(options, synthetic, real),
        "tiny" if options.tiny else "",
        "resume" if options.network_in is not None else "",
        "DEBUG" if options.debug else "",
    )


def _encoders(options: DecoderOptions) -> str:
    coord = ("coord_free" if options.unfreeze_coord_encoder else "coord_frozen") if options.reuse_coord_encoder else ""
    return "_".join(part for part in ("decoder", coord, *options.encoders[1:]) if part)


def _shared(options: TrainingOptions, epochs: int | str | None) -> list[str]:
    return [
        f"s{options.session}" if options.session else "",
        "gray" if options.grayscale else "",
        "no_unc" if options.uncertainty == "none" else f"unc-{options.uncertainty.upper()}",
        "fullsize" if options.fullsize else "",
        f"e{options.epochs if epochs is None else epochs}",
        f"lr{_learning_rate(options.learningrate)}",
    ]


def _data(options: TrainingOptions, synthetic: str, real: str) -> str:
    if options.real_data_chunk == 0:
        return f"{synthetic}-sc{options.sim_data_chunk:.2f}"
    return f"{real}-{'ip' if options.real_data_domain == 'in_place' else 'oop'}-rc{options.real_data_chunk:.2f}"


def _learning_rate(rate: float) -> str:
    return f"{rate:.4f}" if rate >= 1e-4 else f"{rate:.6f}"


def _joined(*parts: str) -> str:
    return "-".join(part for part in parts if part)
