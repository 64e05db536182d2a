"""Files of mock catalogues: layout, writing, validation, comparison."""
