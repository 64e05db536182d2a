"""The engines that find nearest training plots; :mod:`muster.traits.neighbours` opens them."""
