"""Label and field selectors: text in, a question to an object out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.kubernetes_cluster.statuses import ApiRefusal

if TYPE_CHECKING:
    from collections.abc import Callable

    Question = Callable[[dict[str, Any]], bool]

_KEY = r"(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VALUE = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|"
_EQUAL = re.compile(rf"(?P<key>{_KEY})\s*(?P<sign>==|=|!=)\s*(?P<value>{_VALUE})")
_SET = re.compile(rf"(?P<key>{_KEY})\s+(?P<sign>in|notin)\s+\((?P<values>[^()]*)\)")
_THERE = re.compile(rf"(?P<no>!?)\s*(?P<key>{_KEY})")

_FIELDS = {
    "pods": {"metadata.name", "metadata.namespace", "spec.nodeName", "status.phase"},
    "jobs": {"metadata.name", "metadata.namespace", "status.successful"},
    "events": {
        "metadata.name",
        "metadata.namespace",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
        "reason",
        "type",
    },
}


def _split(text: str) -> list[str]:
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _requirement(text: str) -> Question:
    labels = _labels
    if found := _EQUAL.fullmatch(text):
        key, value, same = found["key"], found["value"], found["sign"] != "!="
        return lambda o: (labels(o).get(key) == value) is same
    if found := _SET.fullmatch(text):
        key, inside = found["key"], found["sign"] == "in"
        values = {value.strip() for value in found["values"].split(",")}
        return lambda o: (labels(o).get(key) in values) is inside
    if found := _THERE.fullmatch(text):
        key, there = found["key"], not found["no"]
        return lambda o: (key in labels(o)) is there
    raise ApiRefusal(400, f"unable to parse requirement: found '{text}'")


def _labels(item: dict[str, Any]) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def parse_label_selector(text: str) -> Question:
    questions = [_requirement(part) for part in _split(text)]
    return lambda item: all(question(item) for question in questions)


def _field(item: dict[str, Any], path: str) -> str:
    value: Any = item
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)


def parse_field_selector(plural: str, text: str) -> Question:
    """Read a field selector; 400 for a field that this resource cannot be selected by."""
    wanted = []
    for part in _split(text):
        found = re.fullmatch(r"([A-Za-z.]+)(==|=|!=)(.*)", part)
        if found is None:
            raise ApiRefusal(400, f"invalid selector: '{text}'; can't understand '{part}'")
        if found[1] not in _FIELDS.get(plural, {"metadata.name", "metadata.namespace"}):
            raise ApiRefusal(
                400,
                f"Unable to find {plural!r} that match label selector '', field selector"
                f" '{text}': field label not supported: {found[1]}",
            )
        wanted.append((found[1], found[3], found[2] != "!="))
    return lambda item: all((_field(item, path) == v) is same for path, v, same in wanted)
