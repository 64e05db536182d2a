"""A batch's life: submission, observation, outcome, retry and end."""
