import pytest
import torch

from runs.messages import explained


@pytest.mark.parametrize("error, text", [
    (ValueError("first\nlast line \n"), "last line"),
    (ValueError(""), "ValueError"),
    (MemoryError(), "out of memory (MemoryError): less"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
     "out of memory (CUDA out of memory. Tried to allocate 2 GiB): less"),
    (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes\nmore"),
     "out of memory ([enforce] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes): less"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nException raised from"),
     "DataLoader worker (pid 7) is killed by signal: Killed. again"),
    (ConnectionResetError(104, "Connection reset by peer"),
     "a DataLoader worker was lost ([Errno 104] Connection reset by peer). again"),
])  # fmt: skip
def test_one_line(error, text):
    assert explained(error, memory="less", loader="again") == text
