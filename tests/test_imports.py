import ast
import subprocess
import sys
from pathlib import Path

import pytest

import aefeatures

PACKAGE = Path(aefeatures.__file__).parent

# Lower modules first: each may import only from those above it in this list.
LAYERS = [
    "_version",
    "_warnings",
    "_memory",
    "_sklearn",
    "_global_state",
    "_distributed",
    "_labels",
    "_sources",
    "_survey",
    "_batches",
    "_scaling",
    "_checks",
    "_losses",
    "_devices",
    "_networks",
    "_placing",
    "_neighbors",
    "_regularizer",
    "_contrastive",
    "_supervised",
    "_regularizers",
    "_objective",
    "_gradients",
    "_optimizer",
    "_thread",
    "_training",
    "_progress",
    "_callbacks",
    "_digests",
    "_files",
    "_checkpoint",
    "_model",
    "_fitting",
    "_persistence",
    "_vision",
    "_autoencoder",
    "_pipelines",
    "_ray",
    "_new_rows",
    "_generation",
    "_oversampling",
    "_onnx",
    "_targets",
    "_displays",
    "_components",
    "_reconstructions",
    "_latent_map",
    "_frames",
    "__init__",
]


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_has_a_layer():
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(LAYERS)


@pytest.mark.parametrize("module", LAYERS)
def test_imports_point_down(module):
    below = LAYERS[: LAYERS.index(module)]
    for name in imported_modules(PACKAGE / f"{module}.py"):
        if name.startswith("aefeatures"):
            assert name.removeprefix("aefeatures.") in below


def test_only_one_module_imports_private_parts_of_scikit_learn():
    private = {
        path.stem
        for path in PACKAGE.glob("*.py")
        for name in imported_modules(path)
        if name.startswith("sklearn.") and "._" in name
    }
    assert private == {"_sklearn"}


def test_import_starts_nothing():
    code = """
import sys, threading, random, numpy, torch, warnings
import sklearn.pipeline  # 1.9 imports rich where that is there, which draws random numbers
before = (torch.get_rng_state().sum(), numpy.random.get_state()[1].sum(), random.getstate())
filters, threads = list(warnings.filters), torch.get_num_threads()
import aefeatures
after = (torch.get_rng_state().sum(), numpy.random.get_state()[1].sum(), random.getstate())
assert before == after, "seeded"
assert threading.active_count() == 1, threading.enumerate()
assert torch.get_num_threads() == threads
optional = "imblearn matplotlib onnx onnxruntime plotly ray skl2onnx torchvision"
for name in optional.split():
    assert name not in sys.modules, name
assert not torch.cuda.is_initialized()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
