"""From parameters to frozen batches: inspection, plan, costs, resources."""
