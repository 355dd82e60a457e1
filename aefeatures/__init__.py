"""Learned features for scikit-learn pipelines, from an autoencoder."""

from aefeatures._autoencoder import AutoencoderTransformer
from aefeatures._checkpoint import Checkpoint
from aefeatures._displays import LatentSpaceDisplay, LossCurveDisplay
from aefeatures._frames import NextFramePredictor
from aefeatures._latent_map import write_latent_map
from aefeatures._networks import ConvNetwork, DenseNetwork
from aefeatures._reconstructions import ReconstructionDisplay, ReconstructionMonitor
from aefeatures._regularizers import (
    Contractive,
    Denoising,
    NeighborPreserving,
    Regularizer,
    Sparse,
    Supervised,
    Variational,
)
from aefeatures._version import __version__ as __version__
from aefeatures._vision import load_images

__all__ = [
    "AutoencoderTransformer",
    "Checkpoint",
    "ConvNetwork",
    "Contractive",
    "DenseNetwork",
    "Denoising",
    "LatentSpaceDisplay",
    "LossCurveDisplay",
    "NeighborPreserving",
    "NextFramePredictor",
    "ReconstructionDisplay",
    "ReconstructionMonitor",
    "Regularizer",
    "Sparse",
    "Supervised",
    "Variational",
    "load_images",
    "write_latent_map",
]
