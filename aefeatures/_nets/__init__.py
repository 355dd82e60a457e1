"""Networks, losses and regularizers, and the model that they make."""
