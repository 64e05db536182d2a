"""Statistics of catalogues, and of an ensemble of them."""
