"""Looking at sources, and deciding what a run has to compute."""
