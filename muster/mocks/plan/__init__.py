"""What a run of a campaign has to do, and why."""
