"""From what users pass as X and y to scaled batches."""
