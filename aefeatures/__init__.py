"""Learned features for scikit-learn pipelines, from an autoencoder."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from aefeatures._autoencoder import AutoencoderTransformer
from aefeatures._bridges.onnx import register_onnx_converters, to_onnx
from aefeatures._bridges.pipelines import encode_table
from aefeatures._bridges.ray import fit_on_ray, transform_on_ray
from aefeatures._bridges.vision import load_images
from aefeatures._detection import AutoencoderOutlierDetector
from aefeatures._frames import NextFramePredictor
from aefeatures._generation import AutoencoderGenerator
from aefeatures._imputation import AutoencoderImputer
from aefeatures._meaning import code_importance, code_sensitivity
from aefeatures._moved import keep_old_names
from aefeatures._nets.contrastive import NeighborPreserving
from aefeatures._nets.networks import ConvNetwork, DenseNetwork
from aefeatures._nets.regularizer import Regularizer
from aefeatures._nets.regularizers import Contractive, Denoising, NearPCA, Sparse, Variational
from aefeatures._nets.supervised import Supervised
from aefeatures._pictures.codes import CodeSensitivityDisplay, LatentTraversalDisplay
from aefeatures._pictures.components import ComponentsDisplay
from aefeatures._pictures.displays import LatentSpaceDisplay, LossCurveDisplay
from aefeatures._pictures.latent_map import write_latent_map
from aefeatures._pictures.outliers import OutlierDisplay
from aefeatures._pictures.reconstructions import ReconstructionDisplay, ReconstructionMonitor
from aefeatures._pictures.report import write_report
from aefeatures._rows.sources import RowView
from aefeatures._torch.ranks import distributed
from aefeatures._train.checkpoint import Checkpoint
from aefeatures._version import __version__ as __version__

keep_old_names()

__all__ = [
    "AutoencoderGenerator",
    "AutoencoderImputer",
    "AutoencoderOutlierDetector",
    "AutoencoderTransformer",
    "Checkpoint",
    "CodeSensitivityDisplay",
    "ComponentsDisplay",
    "ConvNetwork",
    "Contractive",
    "DenseNetwork",
    "Denoising",
    "LatentSpaceDisplay",
    "LatentTraversalDisplay",
    "LossCurveDisplay",
    "NearPCA",
    "NeighborPreserving",
    "NextFramePredictor",
    "OutlierDisplay",
    "ReconstructionDisplay",
    "ReconstructionMonitor",
    "Regularizer",
    "RowView",
    "Sparse",
    "Supervised",
    "Variational",
    "code_importance",
    "code_sensitivity",
    "distributed",
    "encode_table",
    "fit_on_ray",
    "load_images",
    "register_onnx_converters",
    "to_onnx",
    "transform_on_ray",
    "write_latent_map",
    "write_report",
]


# Not in `__all__`, so that `import *` works without imbalanced-learn.
if TYPE_CHECKING:
    from aefeatures._oversampling import AutoencoderOversampler as AutoencoderOversampler
else:

    def __getattr__(name: str) -> Any:
        if name == "AutoencoderOversampler":
            from aefeatures._oversampling import AutoencoderOversampler

            return AutoencoderOversampler
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    # `inspect` and `pydoc` read every name that they find here.
    return sorted({*globals(), *(["AutoencoderOversampler"] if find_spec("imblearn") else [])})
