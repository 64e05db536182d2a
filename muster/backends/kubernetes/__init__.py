"""Kubernetes: one Indexed Job a wave, one watch for all, and nothing guessed.

names.py     names, labels and annotations of what is submitted, and the rights that it needs: pure
render.py    batch → pod; wave and pod → Job: pure, pinned by golden files
volumes.py   a pool's claims and empty folders → volumes of a pod: pure
merge.py     a pool's further pod template laid over a pod, and what may not be changed: pure
parse.py     jobs and pods as the API server shows them → states: pure
refusal.py   why the API server took no Job, or a pod does not start: pure
connect.py   how the API server is reached
client.py    its verbs in raw JSON: create, get, list, watch, delete; paced, each with a time-out
submissions.py  Jobs of submissions at the API server: created, looked up by their key, deleted
snapshot.py  Jobs and pods as a watch knows them
watch.py     one list and one watch for all batches of a process
stuck.py     pods that wait for what time alone does not bring
backend.py   the contract of all backends, made of these

What a batch is frozen with is muster.model.kubernetes_target.
"""
