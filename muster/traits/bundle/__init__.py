"""A trained trait: models, training table and manifest, as one folder."""
