"""Which parameters an optimizer may treat as weight matrices."""

from __future__ import annotations

from torch import nn

from networks.transposenet import DenseNetwork


def parameter_roles(net: DenseNetwork) -> dict[str, list[nn.Parameter]]:
    """All parameters of a network by their role.

    Returns:
        'hidden': weights of the convolutions between features, i.e. all but each encoder's first (images in) and the
        decoder's last (the task's units out); 'rest': those two, biases and norms. Each in the network's order.
    """
    outer = {encoder.conv1 for encoder in net.encoders} | {net.decoder.fc3}
    hidden = {module.weight for module in net.modules() if isinstance(module, nn.Conv2d) and module not in outer}
    roles: dict[str, list[nn.Parameter]] = {"hidden": [], "rest": []}
    for parameter in net.parameters():
        roles["hidden" if parameter in hidden else "rest"].append(parameter)
    return roles
