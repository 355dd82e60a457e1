"""Names that modules had in version 0.1.0.dev0, under which pickles and checkpoints know them."""

from __future__ import annotations

import sys
from importlib import import_module

_PACKAGE = __name__.rpartition(".")[0]

# The modules that hold the classes of an earlier one; the first has all that is in pickles.
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
    f"{_PACKAGE}.{new}": f"{_PACKAGE}.{old}" for old, several in _MODULES.items() for new in several
}


def keep_old_names() -> None:
    """Let the old names be imported, as unpickling does."""
    for old, (new, *_) in _MODULES.items():
        sys.modules[f"{_PACKAGE}.{old}"] = import_module(f"{_PACKAGE}.{new}")


def first_name(module: str) -> str:
    """Return the name that a module had first, by which a checkpoint knows its classes."""
    return _OLD_NAMES.get(module, module)
