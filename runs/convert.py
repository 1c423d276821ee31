"""Weights from one kind of file to the other, with their record: `.net` (torch) and `.safetensors`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from networks import architecture_of, load_state_dict
from networks.architecture import check_entries
from networks.build import state_shapes
from networks.safetensors_file import SUFFIX, write_safetensors
from records.tensors import save_tensors
from runs.record import RECORD_TEXT, RunRecord, record_of, write_sidecar

KINDS = (".net", SUFFIX)


def convert(source: Path, target: Path, *, overwrite: bool = False) -> RunRecord | None:
    """Writes the same tensors, as float32, in the other kind of file; its record goes along.

    In a `.safetensors` file the record is a text of the file's header; beside a `.net` file it is `<stem>.json`.

    Returns:
        the record; None where the source has none.
    Raises:
        FileNotFoundError, FileExistsError, ValueError: no source, a target that is there already, files that are not of the
            two kinds, or weights that are damaged, not a network's, or not those of their record. Nothing is written then.
    """
    for path in (source, target):
        if path.suffix not in KINDS:
            raise ValueError(f"{path}: weights files end in {' or '.join(KINDS)}")
    if source.suffix == target.suffix:
        raise ValueError(f"{source} and {target} are of one kind; a file is converted from {KINDS[0]} to {KINDS[1]} or back")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} is there already; --overwrite replaces it")
    state_dict = load_state_dict(source)
    record = record_of(source)
    try:
        architecture = architecture_of(state_dict)
        check_entries(state_dict, state_shapes(architecture))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if record is not None and (contradiction := architecture.contradiction(record.architecture)):
        raise ValueError(f"{source} is not what its record says: the weights have {contradiction}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == SUFFIX:
        write_safetensors(target, state_dict, {} if record is None else {RECORD_TEXT: json.dumps(record.to_json())})
    else:
        _write_net(target, state_dict, record)
    return record


def _write_net(target: Path, state_dict: dict, record: RunRecord | None) -> None:
    """The record first: an interruption in between leaves a record of other weights, which every reader refuses."""
    sidecar = target.with_suffix(".json")
    with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as staging:
        copy = Path(staging) / target.name
        save_tensors(copy, state_dict)
        if record is None:
            sidecar.unlink(missing_ok=True)  # one of earlier weights would lie about these
        else:
            write_sidecar(copy, record)
            os.replace(copy.with_suffix(".json"), sidecar)
        os.replace(copy, target)
