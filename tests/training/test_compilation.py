"""`--compile`: what is compiled shares the weights, and where nothing can be compiled the run goes on as it is."""

import pytest
import torch

from networks import Architecture, build, load_state_dict
from tests.training.small_runs import SMALL, options
from training.compilation import compiled
from training.loop import train

CPU = torch.device("cpu")


class Compiler:
    """In place of torch.compile, which takes minutes: what it was given, and whether it works."""

    def __init__(self, error: Exception | None = None):
        self.error, self.calls, self.dynamic = error, [], None

    def __call__(self, net, dynamic):
        self.dynamic = dynamic

        class Quick(torch.nn.Module):
            def __init__(quick):
                super().__init__()
                quick.net = net

            def forward(quick, images_B3HW):
                self.calls.append(tuple(images_B3HW.shape))
                if self.error is not None:
                    raise self.error
                return net(images_B3HW)

        return Quick()


def test_a_compiled_network_trains_the_same_weights(tmp_path, plane_section, monkeypatch):
    plane_section(3)
    plain = train(options(tmp_path, *SMALL, "--epochs", 2, "--session", "plain"))
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", compiler)
    quick = train(options(tmp_path, *SMALL, "--epochs", 2, "--session", "quick", "--compile"))
    assert compiler.dynamic is True and len(compiler.calls) > 4  # the trial and the parts of four steps
    a, b = load_state_dict(plain.latest), load_state_dict(quick.latest)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "error", [RuntimeError("InvalidCxxCompiler:\nNo working C++ compiler found"), ImportError("no module named triton")]
)
def test_without_a_compiler_one_line_says_so_and_nothing_changes(monkeypatch, caplog, error):
    monkeypatch.setattr(torch, "compile", Compiler(error))
    net = build(Architecture(tiny=True))
    assert compiled(net, CPU, "float32") is net
    reason = str(error).splitlines()[-1]
    assert [record.message for record in caplog.records] == [
        f"--compile: the network runs without it, nothing else changes ({reason})"
    ]


def test_the_trial_leaves_no_gradient(monkeypatch):
    monkeypatch.setattr(torch, "compile", Compiler())
    net = build(Architecture(tiny=True))
    assert compiled(net, CPU, "float32") is not net
    assert all(parameter.grad is None for parameter in net.parameters())
