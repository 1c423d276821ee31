"""The networks: encoders, decoder, single-task and fused, and the layout of their weights files."""

from networks.architecture import Architecture, architecture_of
from networks.build import build
from networks.fused import FusedTransPoseNet
from networks.head import head_scale_of, init_head, load_published, published_state_dict, set_head_scale
from networks.roles import parameter_roles
from networks.transfer import freeze_encoders, init_decoder_from, load_encoder
from networks.transposenet import DenseNetwork, TransPoseNet
from networks.weights import load_network, load_state_dict, save_network

__all__ = [
    "Architecture",
    "DenseNetwork",
    "FusedTransPoseNet",
    "TransPoseNet",
    "architecture_of",
    "build",
    "freeze_encoders",
    "head_scale_of",
    "init_decoder_from",
    "init_head",
    "load_encoder",
    "load_network",
    "load_published",
    "load_state_dict",
    "parameter_roles",
    "published_state_dict",
    "save_network",
    "set_head_scale",
]
