"""Checks of X and y, their scaling, and batches of scaled rows."""
