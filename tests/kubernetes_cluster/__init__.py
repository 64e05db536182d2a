"""A stand-in for a Kubernetes cluster: an API server, its controllers, and a kubelet of processes.

It keeps Jobs, pods, events and watches as the documentation of Kubernetes says, runs a container's
command as a local process, and refuses all that it does not know.  Images, users, read-only roots
and networks are only words here.
"""
