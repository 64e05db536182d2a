"""What may be asked for: parameters, datasets, methods."""
