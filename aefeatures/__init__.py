"""Learned features for scikit-learn pipelines, from an autoencoder."""

from aefeatures._autoencoder import AutoencoderTransformer
from aefeatures._networks import ConvNetwork, DenseNetwork
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
    "ConvNetwork",
    "Contractive",
    "DenseNetwork",
    "Denoising",
    "NeighborPreserving",
    "Regularizer",
    "Sparse",
    "Supervised",
    "Variational",
    "load_images",
]
