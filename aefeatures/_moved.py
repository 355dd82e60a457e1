"""Module names of version 0.1.0.dev0, which its pickles and checkpoints refer to."""

from __future__ import annotations

import sys
from importlib import import_module

_PACKAGE = __name__.rpartition(".")[0]

# Modules that now hold the classes of each old module. The first of them holds every class that
# pickles refer to.
_MODULES = {
    "_batches": ["_rows.sources"],
    "_checkpoint": ["_train.checkpoint"],
    "_components": ["_pictures.components"],
    "_device": ["_nets.placing"],
    "_displays": ["_pictures.displays"],
    "_networks": ["_nets.networks"],
    "_reconstructions": ["_pictures.reconstructions"],
    "_regularizers": [
        "_nets.regularizers",
        "_nets.regularizer",
        "_nets.supervised",
        "_nets.contrastive",
    ],
    "_scaling": ["_rows.scaling"],
    "_targets": ["_pictures.targets"],
    "_vision": ["_bridges.vision"],
}
_OLD_NAMES = {
    f"{_PACKAGE}.{new}": f"{_PACKAGE}.{old}" for old, modules in _MODULES.items() for new in modules
}


def keep_old_names() -> None:
    """Register the old names in `sys.modules`, so that unpickling can import them."""
    for old, (new, *_) in _MODULES.items():
        sys.modules[f"{_PACKAGE}.{old}"] = import_module(f"{_PACKAGE}.{new}")


def first_name(module: str) -> str:
    """Return the first name that a module had. Checkpoints identify its classes by that name."""
    return _OLD_NAMES.get(module, module)
