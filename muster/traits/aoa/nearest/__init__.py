"""The engines that find nearest training plots; :mod:`muster.traits.aoa.neighbours` opens them."""
