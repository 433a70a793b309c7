"""Fields that a specification does not have: which one may be meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel

_MAX_NAME = 60
"""Characters of an unknown name that are compared and shown; no field has half as many."""


def unknown(name: str, known: Iterable[str]) -> str:
    """A sentence on a field that does not exist: the nearest that does, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(name[:_MAX_NAME], names, 1)
    return f"there is no such field; did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"


def explained(entry: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    """What an error of pydantic says; of an unknown field, which one may be meant.

    Args:
        entry: one of `ValidationError.errors()`.
        model: what was validated; None where that is not known.
    """
    if entry["type"] != "extra_forbidden" or model is None:
        return str(entry["msg"])
    *above, name = entry["loc"]
    known = fields_at(model, above)
    return unknown(str(name), known) if known else str(entry["msg"])


def fields_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The fields of the model that lies at a place of another: `('recipe', 'quantisers', 'rules', 0)`.

    Names by which pydantic tells the forms of a union apart are passed over.
    """
    schema = _schema_of(model)
    definitions = schema.get("$defs", {})
    here = _forms(schema, definitions)
    for part in location:
        below = [form for each in here for form in _forms(_member(each, part), definitions)]
        here = below or here
    return list(dict.fromkeys(name for each in here for name in each.get("properties", ())))


@cache
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _member(schema: Mapping[str, Any], part: int | str) -> Mapping[str, Any]:
    if isinstance(part, int):
        found = schema.get("items", {})
    else:
        found = schema.get("properties", {}).get(part) or schema.get("additionalProperties", {})
    return found if isinstance(found, Mapping) else {}


def _forms(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A schema without references: every form that it allows, once."""
    if "$ref" in schema:
        return _forms(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    if choices:
        return [form for choice in choices for form in _forms(choice, definitions)]
    return [schema] if schema else []
