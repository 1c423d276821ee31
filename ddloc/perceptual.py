"""Features that the inpainter is compared by: VGG-19's where its weights are on the machine, else our own encoder's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torchvision.models import VGG19_Weights, vgg19

from ddloc.regressor import UNetRegressor
from records.tensors import load_tensors

VGG, OWN = "VGG-19 of torchvision", "the encoder of stage C"
# relu1_1 2_1 3_1 4_1 5_1 and relu2_2 3_4 4_4 5_2: indices in the list of layers of VGG-19.
_PERCEPTUAL, _STYLE = (1, 6, 11, 20, 29), (8, 17, 26, 31)


class Features:
    """Maps inside a frozen network, for perceptual and for style comparison.

    Args:
        net: whose call runs through the layers. prepare: images in [0, 1] to its input.
        perceptual, style: layers whose outputs are compared.
    """

    def __init__(
        self,
        source: str,
        net: Callable[[torch.Tensor], object],
        perceptual: Sequence[nn.Module],
        style: Sequence[nn.Module],
        prepare: Callable[[torch.Tensor], torch.Tensor] = lambda images: images,
    ):
        self.source, self._net, self._prepare = source, net, prepare
        self._layers = {"perceptual": list(perceptual), "style": list(style)}

    def perceptual(self, images_B3HW: torch.Tensor) -> list[torch.Tensor]:
        return self._outputs(images_B3HW, "perceptual")

    def style(self, images_B3HW: torch.Tensor) -> list[torch.Tensor]:
        return self._outputs(images_B3HW, "style")

    def _outputs(self, images_B3HW: torch.Tensor, kind: str) -> list[torch.Tensor]:
        outputs: list[torch.Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output.float()))
            for layer in self._layers[kind]
        ]
        try:
            self._net(self._prepare(images_B3HW))
        finally:
            for hook in hooks:
                hook.remove()
        return outputs


def vgg_weights_file() -> Path:
    """Where torchvision keeps the weights of VGG-19 once somebody has downloaded them."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(VGG19_Weights.IMAGENET1K_V1.url).name


def available_source() -> str:
    """Which features this machine has."""
    return VGG if vgg_weights_file().is_file() else OWN


def features(
    source: str, regressor: nn.Module, normalise: Callable[[torch.Tensor], torch.Tensor], device: torch.device
) -> Features:
    """The features of a source; nothing is downloaded.

    Args:
        regressor, normalise: of stage C.
    Raises:
        FileNotFoundError, ValueError: the weights of VGG-19 cannot be read; names the file.
    """
    if source == VGG:
        net = vgg19(weights=None)
        net.load_state_dict(load_tensors(vgg_weights_file(), "weights of VGG-19"))
        layers = net.features[: max(_STYLE) + 1].to(device).eval().requires_grad_(False)
        # As published, images are not normalised for it.
        return Features(VGG, layers, [layers[i] for i in _PERCEPTUAL], [layers[i] for i in _STYLE])
    if isinstance(regressor, UNetRegressor):
        levels = [stage[-1] for stage in regressor.encoder]
        return Features(OWN, regressor, levels, levels[1:], normalise)
    encoder = regressor.encoders[0]
    levels = [encoder.conv1, encoder.conv2, encoder.conv3, encoder.conv4]
    return Features(OWN, encoder, levels, levels[1:], normalise)
