"""Configuration of the documentation; `make docs` builds it."""

import os
import sys
from pathlib import Path

os.environ["MPLBACKEND"] = "agg"
sys.path.insert(0, str(Path(__file__).parent))

import aefeatures

project = "aefeatures"
author = "The aefeatures developers"
copyright = "the aefeatures developers"
version = release = aefeatures.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "py:obj"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# numpydoc: attributes and methods are listed on the page of their class.
numpydoc_show_class_members = False
# All of numpydoc's checks but those that ask for words where a name and a type say it all.
numpydoc_validation_checks = {
    "all", "ES01", "EX01", "GL01", "GL02", "PR07", "RT02", "RT03", "SA01", "SA04", "YD01",
}  # fmt: skip
# An attribute that its comment documents; records that list attributes in place of parameters.
numpydoc_validation_exclude = {
    r"\.Regularizer\.head$",
    r"regularizer\.(TrainingData|Batch)$",
}
autodoc_typehints = "none"
autosummary_generate = True

# From the first thing to know to the more special; new ones come last.
GALLERY = [
    "digits", "lecture", "latent_space", "components", "code_meaning", "features", "denoising",
    "missing_values", "novelty", "generation", "next_frame",
]  # fmt: skip


def gallery_position(name):
    """Where a file of the gallery stands in it."""
    name = Path(name).stem.removeprefix("plot_")
    return GALLERY.index(name) if name in GALLERY else len(GALLERY)


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"(^|/)(?!plot_)[^/]*\.py$",
    "within_subsection_order": "conf.gallery_position",
    "download_all_examples": False,
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
    "capture_repr": (),
    "image_scrapers": ("matplotlib",),
}

html_theme = "pydata_sphinx_theme"
html_title = "aefeatures"
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "header_links_before_dropdown": 4,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "tutorial": [], "benchmarks": [], "design": [], "coming_from": []}
html_static_path = []
# What is written by `write_digits_map` below.
html_extra_path = ["_build/extra"]
EXTRA = Path(__file__).parent / "_build" / "extra"
EXTRA.mkdir(parents=True, exist_ok=True)


def write_digits_map(_app):
    """Write the map of digits that the page on it shows."""
    from sklearn.datasets import load_digits

    from aefeatures import AutoencoderTransformer, write_latent_map

    X, y = load_digits(return_X_y=True)
    transformer = AutoencoderTransformer.from_preset("neighbors", scaling="global", random_state=0)
    transformer.fit(X)
    write_latent_map(transformer, X, y, path=EXTRA / "digits.html", image_shape=(8, 8))


def setup(app):
    """Make what the pages embed, before they are built."""
    app.connect("builder-inited", write_digits_map)
