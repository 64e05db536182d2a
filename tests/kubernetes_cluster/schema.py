"""Strict reading of bodies, by the schemas of Kubernetes: an unknown field is an error.

The schemas are those of kubernetes-validate; a walk of our own names the field as the server does.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

VERSION = "1.36"
MISSING = "missing field"
UNKNOWN = "unknown field"

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


@functools.cache
def _definitions() -> dict[str, Any]:
    import kubernetes_validate

    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    text = (folder / f"v{VERSION}.0-local-strict" / "_definitions.json").read_text()
    found: dict[str, Any] = json.loads(text)["$defs"]
    return found


@functools.cache
def _named(kind: str, api_version: str) -> dict[str, Any] | None:
    group = {"v1": "core.v1"}.get(api_version)
    if group is None:
        name, _, version = api_version.partition("/")
        group = f"{name.removesuffix('.k8s.io')}.{version}"
    found: dict[str, Any] | None = _definitions().get(f"io.k8s.api.{group}.{kind}")
    return found


def check_fields(body: dict[str, Any], kind: str, api_version: str) -> list[str]:
    """Return what is wrong with an object's fields, in the words of the server's decoder."""
    schema = _named(kind, api_version)
    if schema is None:
        raise LookupError(f"no schema of {api_version} {kind}")
    return _check(body, schema, "")


def _check(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    if value is None:
        return []
    if "$ref" in schema:
        return _check(value, _definitions()[schema["$ref"].rpartition("/")[2]], path)
    if "oneOf" in schema:
        fits = any(not _check(value, one, path) for one in schema["oneOf"])
        return [] if fits else [f"json: cannot unmarshal {_word(value)} into field {path}"]
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(_is(value, name) for name in types):
        wanted = next(name for name in types if name != "null")
        return [f"json: cannot unmarshal {_word(value)} into field {path} of type {wanted}"]
    if isinstance(value, dict):
        return _check_object(value, schema, path)
    if isinstance(value, list) and "items" in schema:
        return [
            problem
            for number, item in enumerate(value)
            for problem in _check(item, schema["items"], f"{path}[{number}]")
        ]
    return []


def _check_object(value: dict[str, Any], schema: dict[str, Any], path: str) -> list[str]:
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    problems = [
        f'{MISSING} "{path}.{name}"' if path else f'{MISSING} "{name}"'
        for name in schema.get("required", [])
        if value.get(name) is None
    ]
    for name, item in value.items():
        where = f"{path}.{name}" if path else name
        if name in properties:
            problems += _check(item, properties[name], where)
        elif others is False:
            problems.append(f'{UNKNOWN} "{where}"')
        elif isinstance(others, dict):
            problems += _check(item, others, where)
    return problems


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    words = {str: "string", int: "number", float: "number", dict: "object", list: "array"}
    return words[type(value)]
