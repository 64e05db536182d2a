"""Names that the objects of a submission have in a cluster, and the rights that they need.

Jobs and pods of a submission are found by a label, whose value is a hash of the submission key: a
label holds 63 characters, and not all that keys hold.  The whole key is an annotation.
"""

from __future__ import annotations

import hashlib
import re

LABEL_MANAGED = "app.kubernetes.io/managed-by"
MANAGED_BY = "muster"
"""Value of LABEL_MANAGED: of all jobs and pods of Muster."""
LABEL_KEY = "muster.dev/key"
LABEL_STEP = "muster.dev/step"
LABEL_RUN = "muster.dev/run"
ANNOTATION_KEY = "muster.dev/submission"
ANNOTATION_BATCH = "muster.dev/batch"

OWN_LABELS = frozenset({LABEL_MANAGED, LABEL_KEY, LABEL_STEP, LABEL_RUN})
OWN_ANNOTATIONS = frozenset({ANNOTATION_KEY, ANNOTATION_BATCH})

INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
"""Where Kubernetes says which index a pod of an Indexed Job has; also the name of a label."""
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
HOSTNAME_LABEL = "kubernetes.io/hostname"

RIGHTS: tuple[tuple[str, str, str], ...] = (
    ("batch", "jobs", "create"),
    ("batch", "jobs", "delete"),
    ("batch", "jobs", "get"),
    ("batch", "jobs", "list"),
    ("batch", "jobs", "watch"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "pods/log", "get"),
    ("", "events", "list"),
)
"""What a backend does in its namespace: API group, resource, verb."""

_HASH_DIGITS = 32
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def job_name(key: str) -> str:
    """Return the name of a submission's Job: with an index behind it, it is a DNS label."""
    return f"muster-{key_label(key)}"


def key_label(key: str) -> str:
    """Return the value of LABEL_KEY for a submission key."""
    return hashlib.sha256(key.encode()).hexdigest()[:_HASH_DIGITS]


def label_value(text: str) -> str:
    """Return a text as a label's value; one that no label can hold is cut, with a hash behind."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    words = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")[:50].rstrip("-_.")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{words}-{digest}" if words else digest
