"""From parameters to frozen batches: inspection, plan, what it costs, and what a batch is frozen with."""
