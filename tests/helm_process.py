"""``python -m tests.helm_process``: Helm, one JSON line a question, one an answer.

Helm is a library in Go, with threads and signal handlers: it has a process of its own, since the
tests' own processes fork.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import helm_python


def answer(question: dict[str, Any]) -> Any:
    """Answer one question."""
    chart, values = question["chart"], question["values"]
    if question["what"] == "lint":
        return helm_python.lint(chart, values, **question["options"])
    with helm_python.Chart.load(chart) as loaded:
        if question["what"] == "defaults":
            return loaded.values
        return loaded.render(values, **question["options"])


if __name__ == "__main__":
    for line in sys.stdin:
        try:
            found = {"answer": answer(json.loads(line))}
        except helm_python.HelmError as error:
            found = {"refused": str(error)}
        print(json.dumps(found), flush=True)
