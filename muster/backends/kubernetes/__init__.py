"""Kubernetes: one Indexed Job a wave, one watch for all, and nothing guessed.

names.py     names, labels and annotations of what is submitted, and the rights that it needs: pure
render.py    batch → pod; wave and pod → Job: pure, pinned by golden files
merge.py     a pool's further pod template laid over a pod, and what may not be changed: pure
parse.py     jobs and pods as the API server shows them → states: pure
refusal.py   why the API server took no Job, or a pod does not start: pure

What a batch is frozen with is muster.model.kubernetes_target.
"""
