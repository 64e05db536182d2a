"""From source pixels to target cells, window by window."""
