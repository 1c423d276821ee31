"""What a run is: its record, where its files lie, and how later stages find it by content instead of by name."""

from runs.record import ParentRecord, RunRecord, SectionRecord, read_record, record_of, write_record, write_sidecar
from runs.search import Run, RunFilter, find_runs

__all__ = [
    "ParentRecord",
    "Run",
    "RunFilter",
    "RunRecord",
    "SectionRecord",
    "find_runs",
    "read_record",
    "record_of",
    "write_record",
    "write_sidecar",
]
