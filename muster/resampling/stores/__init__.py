"""Where resampled values lie, and how they are loaded and read."""
