"""JSON schemas as another program would read them, without pydantic."""

from __future__ import annotations

from typing import Any


def admits(schema: dict[str, Any], value: Any, definitions: dict[str, Any]) -> bool:
    """Whether a JSON schema admits a value; the part of the standard that pydantic writes."""
    if "$ref" in schema:
        return admits(definitions[schema["$ref"].removeprefix("#/$defs/")], value, definitions)
    if "anyOf" in schema:
        return any(admits(s, value, definitions) for s in schema["anyOf"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    kinds = {
        "object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool,
        "null": type(None),
    }  # fmt: skip
    kind = schema.get("type")
    if kind is not None:
        is_bool = isinstance(value, bool)
        if not isinstance(value, kinds[kind]) or (is_bool and kind != "boolean"):
            return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (
            value >= schema.get("minimum", value)
            and value <= schema.get("maximum", value)
            and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
            and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        )
    if isinstance(value, list):
        bounds = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return bounds and all(admits(schema.get("items", {}), item, definitions) for item in value)
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        known = all(admits(properties[k], v, definitions) for k, v in value.items() if k in properties)
        more = [v for k, v in value.items() if k not in properties]
        allowed = all(admits(others, v, definitions) for v in more) if isinstance(others, dict) else others or not more
        return known and allowed and all(name in value for name in schema.get("required", []))
    return True
