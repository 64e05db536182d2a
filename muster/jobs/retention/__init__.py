"""What the work directory and the store keep, and for how long."""
