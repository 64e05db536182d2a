"""The campaign file, and what a campaign knows of itself."""
