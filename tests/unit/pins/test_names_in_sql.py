"""Keys of stored JSON that SQL names: each has a test with real rows in integration/pins."""

from __future__ import annotations

from tests.unit.pins.golden_files import check_literal
from tests.unit.pins.sources import find_all

PATH = r"(\b\w+\s*(?:->>?\s*(?:'[^']*'|\w+\.\w+)\s*)+)"


def test_sql_reads_these_keys_of_stored_json_and_no_others() -> None:
    found = {" ".join(path.split()) for path in find_all(PATH, ".py", ".sql", ".j2")}
    check_literal(
        "keys of JSON in SQL",
        sorted(found),
        [
            "facts -> 'bands'",
            "facts ->> 'fingerprint'",
            "ranks ->> NEW.state",
            "ranks ->> OLD.state",
            "resources ->> 'cpus'",
            "resources ->> 'gpus'",
            "spec -> 'caps'",
            "spec -> 'deadline_s'",
            "spec -> b.backend -> 'cluster' ->> 'name'",
            "spec -> b.backend ->> 'pack'",
            "spec -> batch.backend -> 'cluster' ->> 'name'",
            "spec -> batch.backend ->> 'nodes'",
            "spec -> batch.backend ->> 'ntasks'",
            "spec -> batch.backend ->> 'work_root'",
            "spec -> recent.backend ->> 'ntasks'",
            "spec ->> 'looks'",
        ],
        "is read from JSON of stored runs (a new key: pin it in integration/pins, too)",
    )
