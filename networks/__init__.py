"""TransPoseNet: encoder, decoder, single-task network, and the layout of its weights files."""

from networks.architecture import Architecture, architecture_of
from networks.transposenet import TransPoseNet
from networks.weights import load_network, load_state_dict, save_network

__all__ = ["Architecture", "TransPoseNet", "architecture_of", "load_network", "load_state_dict", "save_network"]
