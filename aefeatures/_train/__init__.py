"""A fit: its steps, the training loop, and everything that watches it."""
