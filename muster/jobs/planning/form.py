"""The form of a workflow: what a person may say to a run, as JSON schemas of one field each.

Airflow shows it and checks conf by it before a run is made.  It says only what its pages can show
and what JSON itself can say: an object is checked as an object, all else by the parameters' own
type when the run is opened.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from muster.jobs.planning.params import RunParams
    from muster.jobs.planning.workflow import Workflow

HIDDEN = frozenset({"interval_start", "interval_end"})
"""Parameters that a run's own interval fills."""

RUN_OPTIONS = frozenset({"year", "month", "quorum"})
"""Fields that say something of the run itself and are no part of the workflow's own parameters."""

_NUMBERS = frozenset({"integer", "number"})
_KEPT: dict[str, frozenset[str]] = {
    **dict.fromkeys(("items", "maxItems", "minItems", "uniqueItems"), frozenset({"array"})),
    **dict.fromkeys(("maxLength", "minLength", "pattern"), frozenset({"string"})),
    **dict.fromkeys(("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"), _NUMBERS),
    "enum": frozenset({"array", "boolean", "integer", "number", "object", "string"}),
}
"""What a form says of a value → the types of which it is said."""

_JSON_TYPES = {
    list: "array", bool: "boolean", int: "integer", type(None): "null", float: "number",
    dict: "object", str: "string",
}  # fmt: skip
_EMPTY: dict[str, Any] = {"array": [], "object": {}, "string": ""}


@dataclass(frozen=True)
class FormField:
    """One field of a form.

    Attributes
    ----------
    default : object
        What stands in it; None where nothing is said, and something else says it or it is optional.
    schema : dict
        JSON schema, with title and description.
    """

    default: Any
    schema: dict[str, Any]


def make_form(workflow: Workflow) -> dict[str, FormField]:
    """Make the form of a workflow: its parameters' own fields, and those of every run."""
    model = workflow.params_model
    described, descriptions = model.model_json_schema(), read_descriptions(model)
    form: dict[str, FormField] = {}
    if model.FILE_KEYS:
        form["config"] = FormField(
            None,
            {
                "type": ["null", "string"],
                "title": model.FILE_TITLE,
                "description": model.FILE_DESCRIPTION,
            },
        )
    for name, schema in described["properties"].items():
        if name not in HIDDEN:
            flat = _flatten(schema, described.get("$defs", {}))
            form[name] = _make_field(model, name, flat, descriptions[name])
    return form | _run_fields(workflow)


def _make_field(
    model: type[RunParams], name: str, schema: dict[str, Any], description: str
) -> FormField:
    field = model.model_fields[name]
    in_file = name in model.FILE_KEYS
    default = None if in_file or field.is_required() else _default_of(model, name)
    types = [t for t in schema.pop("type") if t != "null"]
    if in_file:
        schema.pop("minItems", None)  # nothing said is what the file says
    if in_file or not field.is_required() or types[0] not in _EMPTY or "enum" in schema:
        types.insert(0, "null")
        if "enum" in schema:
            schema["enum"] = [None, *(value for value in schema["enum"] if value is not None)]
    else:
        default = _EMPTY[types[0]]
        schema.pop("minItems", None)
        schema.pop("minLength", None)
    if "enum" in schema.get("items", {}):
        schema["examples"] = schema["items"]["enum"]  # without them Airflow offers no choice
    return FormField(
        default,
        {
            "type": _alone(types),
            **schema,
            "title": name.replace("_", " ").capitalize(),
            "description": description,
        },
    )


def read_descriptions(model: type[RunParams]) -> dict[str, str]:
    """Read what a model's docstring says of each of its attributes."""
    names: list[str] = []
    found: dict[str, str] = {}
    for line in (inspect.getdoc(model) or "").partition("\n----------\n")[2].splitlines():
        if line.startswith(" "):
            found |= {name: f"{found.get(name, '')} {line.strip()}".strip() for name in names}
        else:
            names = line.partition(" : ")[0].split(", ")
    return found


def _default_of(model: type[RunParams], name: str) -> Any:
    """Return a field's default as JSON has it."""
    default = model.model_fields[name].get_default(call_default_factory=True)
    made = model.model_construct(None, **{name: default})
    return made.model_dump(mode="json", include={name}, warnings=False)[name]


def _flatten(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce a schema to one level, with all types that it allows in a list.

    What it says of one type stays if all that it allows of that type say the same: a form may take
    more than the parameters' own type does, and never less.
    """
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    kept = {key: schema[key] for key in _KEPT if key in schema}
    allowed = schema.get("anyOf") or schema.get("oneOf")
    if allowed:
        return _merge([_flatten(each, definitions) for each in allowed]) | kept
    if "const" in schema:
        kept["enum"] = [schema["const"]]
    types = schema.get("type") or _types_of(kept.get("enum"))
    if types == "object":
        return {"type": ["object"]}
    if types == "array":
        if "minLength" in kept:
            kept["minItems"] = kept.pop("minLength")
        items = {"anyOf": schema["prefixItems"]} if "prefixItems" in schema else schema.get("items")
        flat = _flatten(items or {}, definitions)
        kept["items"] = {**flat, "type": _alone(flat["type"])}
    return {"type": [types] if isinstance(types, str) else types, **kept}


def _merge(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Allow what any of several schemas of one level allows."""
    merged: dict[str, Any] = {"type": list(dict.fromkeys(t for m in members for t in m["type"]))}
    for key, types in _KEPT.items():
        said: list[Any] = [m.get(key) for m in members if types & {*m["type"]}]
        if key == "enum":
            if all(said):
                merged[key] = list(dict.fromkeys(value for values in said for value in values))
        elif said and said[0] is not None and all(each == said[0] for each in said):
            merged[key] = said[0]
    return merged


def _types_of(values: list[Any] | None) -> list[str]:
    """List the types of values, as JSON calls them; all that there are where nothing is said."""
    if values is None:
        return list(_JSON_TYPES.values())
    return list(dict.fromkeys(_JSON_TYPES[type(value)] for value in values))


def _alone(types: list[str]) -> Any:
    return types if len(types) > 1 else types[0]


def _run_fields(workflow: Workflow) -> dict[str, FormField]:
    fields = {}
    if workflow.interval in ("year", "month"):
        fields["year"] = FormField(
            None,
            {
                "type": ["null", "integer"],
                "minimum": 1900,
                "maximum": 2200,
                "title": "Year",
                "description": "For locations with {year}; a backfill fills it in by itself.",
            },
        )
    if workflow.interval == "month":
        fields["month"] = FormField(
            None,
            {
                "type": ["null", "integer"],
                "minimum": 1,
                "maximum": 12,
                "title": "Month",
                "description": "Of that year, for locations with {year} and {month}; so does a "
                "backfill.",
            },
        )
    by_element = workflow.judged == "element"
    fields["quorum"] = FormField(
        None if by_element else 1.0,
        {
            "type": ["null", "number"],
            "minimum": 0,
            "maximum": 1,
            "title": "Success quorum",
            "description": f"Share of the {'element' if by_element else workflow.noun}s"
            + (", and what is made of them all," if workflow.final_steps and not by_element else "")
            + " that must succeed for the run to succeed"
            + ("; by default what the run's own params say." if by_element else "."),
        },
    )
    return fields
