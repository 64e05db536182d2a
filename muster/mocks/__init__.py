"""Mock campaigns: galaxy catalogues populated from simulated haloes, by the ten thousand."""
