"""The version; a module of its own so that files of models can name it."""

__version__ = "0.1.0.dev0"
