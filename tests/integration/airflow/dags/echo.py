"""A DAG that knows nothing of Muster, for tests of Airflow's services and of the REST client."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task


@dag(schedule=None, tags=["test"], params={"words": Param([], type="array"), "nap_s": 0})
def echo() -> None:
    """Say each word in a task of its own; ``bad`` fails."""

    @task
    def split() -> list[str]:
        words: list[str] = get_current_context()["params"]["words"]
        return words

    @task(map_index_template="{{ task.op_kwargs['word'] }}")
    def say(word: str) -> None:
        nap_s: Any = get_current_context()["params"]["nap_s"]
        print(f"the word is {word}")
        if word == "bad":
            raise ValueError("a bad word")
        if nap_s:
            # A job in a session of its own, as a backend starts it.
            command = [sys.executable, "-c", f"import time; time.sleep({nap_s})"]
            subprocess.run(command, start_new_session=True, check=False)

    say.expand(word=split())


echo()
