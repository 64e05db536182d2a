"""Slurm: one submission a wave, one look at the queue for all, and nothing guessed.

place.py      what a batch is frozen with: the pool in Slurm's words, and how to reach the cluster
render.py     wave → script, environment, list of elements: pure, pinned by golden files
parse.py      what squeue, sacct and sbatch print → frozen rows: pure
refusal.py    why sbatch took no job: for good, for now, or nobody knows: pure
limits.py     what a cluster allows, as scontrol and sacctmgr print it: pure
transport.py  how a command reaches the cluster: here, or (ssh.py) on a login node
client.py     the verbs: submit, read the queue and the accounting, cancel; by commands for now
governor.py   how much may be submitted, and how fast
poller.py     one look for all batches, by whoever of several processes is elected
backend.py    the contract of all backends, made of these
"""
