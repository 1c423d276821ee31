"""What went wrong, in one line for the user."""

from __future__ import annotations


def explained(error: BaseException, *, memory: str, loader: str) -> str:
    """The last line of an error; what PyTorch says of memory and of loader processes gets a word of what to do.

    Args:
        memory, loader: the advice for either.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, MemoryError) or "out of memory" in lines[0] or "allocate memory" in lines[0]:
        return f"out of memory ({lines[0]}): {memory}"
    of_loader = next((line for line in lines if "DataLoader worker" in line), None)
    if of_loader is not None:
        return f"{of_loader} {loader}"
    if isinstance(error, ConnectionResetError):  # killed between announcing a batch and handing over its memory
        return f"a DataLoader worker was lost ({lines[0]}). {loader}"
    return lines[-1]
