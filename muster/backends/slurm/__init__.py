"""Slurm: one submission a wave, one look at the queue for all, and nothing guessed.

place.py      what a batch is frozen with: the pool in Slurm's words, and how to reach the cluster
render.py     wave → script, environment, list of elements: pure, pinned by golden files
parse.py      what squeue, sacct and sbatch print → frozen rows: pure
refusal.py    why sbatch took no job: for good, for now, or nobody knows: pure
limits.py     what a cluster allows, as scontrol and sacctmgr print it: pure
transport.py  how a command reaches the cluster: here (local_commands.py), or on a login node
              (ssh.py), where ssh_login.py gets in
mirror.py     a work directory that the cluster has elsewhere: mirror_paths.py translates,
              mirror_arrivals.py takes what comes, login_node.py is what runs over there
client.py     the verbs: submit, read the queue and the accounting, cancel; by commands for now
governor.py   how much may be submitted, and how fast
seen.py       what a look has seen, as it is asked for and handed on
poller.py     one look for all batches, by whoever of several processes is elected
backend.py    the contract of all backends, made of these
examine.py    what a doctor asks of a cluster: inventory.py reads partitions and nodes, probe_job.py
              runs one small job, findings.py says what all that means for a site
"""
