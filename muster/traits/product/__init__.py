"""The map of a trait: its bands, its file, its catalogue."""
