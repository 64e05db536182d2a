"""From plots to a bundle."""
