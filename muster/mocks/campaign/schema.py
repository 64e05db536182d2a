"""The JSON Schema of the campaign file, generated from its models.

``python -m muster.mocks.campaign.schema`` publishes it in config/schemas/.  An editor completes
keys with it where a file begins with
``# yaml-language-server: $schema=../schemas/campaign.schema.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from muster import storage
from muster.mocks.campaign.config import CampaignConfig

SCHEMA_FILE = Path(__file__).parents[3] / "config" / "schemas" / "campaign.schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def make_schema() -> dict[str, Any]:
    """Return the JSON Schema of a campaign file."""
    schema = CampaignConfig.model_json_schema(mode="validation")
    tidied: dict[str, Any] = _tidy(schema)
    return {"$schema": DIALECT, **tidied, "title": "Muster mock campaign"}


def render_schema() -> str:
    """Return the published text."""
    return json.dumps(make_schema(), indent=2, ensure_ascii=False) + "\n"


def _tidy(part: Any) -> Any:
    """Take generated titles out, and line breaks of docstrings."""
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    tidied = {}
    for key, value in part.items():
        if key == "title" and isinstance(value, str):
            continue
        if key == "description" and isinstance(value, str):
            tidied[key] = " ".join(value.split())
        elif key == "default" and value in ({}, None):
            continue
        else:
            tidied[key] = _tidy(value)
    return tidied


def main() -> int:
    """Publish the schema."""
    storage.write_text(str(SCHEMA_FILE), render_schema())
    return 0


if __name__ == "__main__":
    sys.exit(main())
