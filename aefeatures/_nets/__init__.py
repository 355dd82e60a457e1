"""Networks, losses, regularizers and the model that is built from them."""
