"""Learned features for scikit-learn pipelines, from an autoencoder."""

from aefeatures._autoencoder import AutoencoderTransformer
from aefeatures._vision import load_images

__version__ = "0.1.0.dev0"

__all__ = ["AutoencoderTransformer", "load_images"]
