"""A run's report: one HTML file that asks nothing of anybody, to be kept and sent around.

``read`` takes the story of a run out of the store, ``sums`` adds it up, ``render`` turns it into
the page, ``write`` puts that where it belongs.  A workflow that has more to tell extends the
template and names its own function in :class:`muster.jobs.planning.workflow.Workflow`.
"""
