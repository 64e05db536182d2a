"""Plain data as YAML that reads back the same, by YAML 1.1 and by the core schema alike."""

from __future__ import annotations

from typing import Any

import yaml

from muster.mocks.campaign.yaml_document import CORE_STR, resolve_plain


class _CoreDumper(yaml.SafeDumper):
    """SafeDumper that quotes a text which the core schema would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value out each time: aliases are not read."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if resolve_plain(text) == CORE_STR else '"'
    return dumper.represent_scalar(CORE_STR, text, style=style)


_CoreDumper.add_representer(str, _represent_text)


def render_document(data: dict[str, Any]) -> str:
    """Render plain data as YAML, keys in their order."""
    return yaml.dump(
        data, Dumper=_CoreDumper, sort_keys=False, allow_unicode=True, default_flow_style=None
    )
