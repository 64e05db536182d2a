"""Plant-trait maps: train, predict, coefficient of variation, area of applicability, product."""
