"""Slurm: one submission a wave, one poll of the queue for all, and nothing guessed.

render.py          wave → script, environment, list of elements: pure, pinned by golden files
parse.py           what squeue, sacct and sbatch print → frozen rows: pure
refusal.py         why sbatch took no job: for good, for now, or unknown: pure
limits.py          what a cluster allows, as scontrol and sacctmgr print it: pure
client.py          the verbs: submit, read the queue and the accounting, cancel; by commands for now
submit_limiter.py  how much may be submitted, and how fast
queue_snapshot.py  one poll's answer, as it is asked for and handed on
poller.py          one poll for all batches, by the one of several processes that is elected
backend.py         the contract of all backends, made of these

What a batch is frozen with is muster.model.slurm_target; how commands reach a cluster, and work
directories that it has elsewhere, are muster.backends.remote; what a doctor asks of a cluster is
muster.doctor.
"""
