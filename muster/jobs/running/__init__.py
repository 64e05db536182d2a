"""Inside a job: the runner, the process of the step, and what they report."""
