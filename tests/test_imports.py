import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import aefeatures

PACKAGE = Path(aefeatures.__file__).parent

# Lower modules first, as in the table of the design: each may import only from those above it.
DESIGN = PACKAGE.parent / "docs" / "design.md"
LAYERS = re.findall(r"^\| `(_[\w.]+)` \|", DESIGN.read_text(encoding="utf-8"), re.MULTILINE)


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_has_a_layer():
    found = {name_of(path) for path in PACKAGE.rglob("*.py")}
    assert found == {
        *LAYERS,
        *(f"{layer.partition('.')[0]}.__init__" for layer in LAYERS if "." in layer),
    }


@pytest.mark.parametrize("module", LAYERS)
def test_imports_point_down(module):
    below = LAYERS[: LAYERS.index(module)]
    for name in imported_modules(PACKAGE / f"{module.replace('.', '/')}.py"):
        if name.startswith("aefeatures"):
            assert name.removeprefix("aefeatures.") in below


def test_only_one_module_imports_private_parts_of_scikit_learn():
    private = {
        name_of(path)
        for path in PACKAGE.rglob("*.py")
        for name in imported_modules(path)
        if name.startswith("sklearn.") and "._" in name
    }
    assert private == {"_sklearn"}


def test_import_starts_nothing():
    code = """
import sys, threading, random, numpy, torch, warnings
import sklearn.pipeline  # 1.9 imports rich where that is there, which draws random numbers
before = (torch.get_rng_state().sum(), numpy.random.get_state()[1].sum(), random.getstate())
imported = set(sys.modules)
filters, threads = list(warnings.filters), torch.get_num_threads()
import aefeatures
after = (torch.get_rng_state().sum(), numpy.random.get_state()[1].sum(), random.getstate())
assert before == after, "seeded"
assert threading.active_count() == 1, threading.enumerate()
assert torch.get_num_threads() == threads
optional = "imblearn matplotlib onnx onnxruntime plotly ray skl2onnx torchvision"
slow = "sklearn.compose sklearn.mixture sklearn.model_selection sklearn.neighbors"
for name in {*optional.split(), *slow.split()} - imported:
    assert name not in sys.modules, name
assert not torch.cuda.is_initialized()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
