"""The JSON schema (draft 2020-12) of image.yml and kiln.yml, from the table that the loader reads by; for editors."""

from __future__ import annotations

from collections.abc import Mapping

from kiln.sources.catalog.keys import BOOTSTRAP, DEFAULTS, FORMS, NETWORKS, PREFIX, TOP, Key

_TEXT: dict[str, object] = {"type": ["string", "number", "boolean", "null"]}
_MAP: dict[str, object] = {"type": ["object", "null"], "additionalProperties": _TEXT}
_LIST: dict[str, object] = {"type": "array", "items": _TEXT}
_TEXTS: dict[str, object] = {"anyOf": [_TEXT, _LIST]}
_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_FLAG: dict[str, object] = {
    "anyOf": [{"type": ["boolean", "null"]}, {"enum": ["true", "false", "yes", "no", "on", "off"]}, _VARIABLE]
}


def schema() -> dict[str, object]:
    """The schema of a whole catalog."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Catalog of images",
        "description": "Images that kiln makes together: image.yml or kiln.yml.",
        **_object(TOP),
        "patternProperties": {f"^{PREFIX}": True},
        "$defs": {
            "engine": _form("engine"), "manager": _form("manager"), "image": _form(""),
            "defaults": _object(DEFAULTS), "bootstrap": _object(BOOTSTRAP),
        },
    }  # fmt: skip


def _object(keys: Mapping[str, Key]) -> dict[str, object]:
    made: dict[str, object] = {
        "type": "object",
        "properties": {key.name: {**_shape(key), "description": key.about} for key in keys.values()},
        "additionalProperties": False,
    }
    if required := [key.name for key in keys.values() if key.required]:
        made["required"] = required
    return made


def _form(kind: str) -> dict[str, object]:
    made = _object(FORMS[kind])
    properties = made["properties"]
    assert isinstance(properties, dict)
    if kind:
        properties["type"] = {"const": kind, "description": FORMS[kind]["type"].about}
    else:
        made["anyOf"] = [{"required": ["id"]}, {"required": ["name"]}]
    return made


def _shape(key: Key) -> dict[str, object]:
    shapes: dict[str, dict[str, object]] = {
        "text": _TEXT, "flag": _FLAG, "texts": _TEXTS, "map": _MAP, "pairs": {"anyOf": [_MAP, _LIST]},
        "network": {"anyOf": [{"enum": list(NETWORKS)}, _VARIABLE]},
        "version": {"enum": [1, "1", "1.0"]},
        "bootstrap": {"$ref": "#/$defs/bootstrap"},
        "defaults": {"$ref": "#/$defs/defaults"},
        "groups": {"type": ["object", "null"], "additionalProperties": _TEXTS},
        "matrix": _matrix(),
        "images": {"type": "array", "items": {
            "if": {"required": ["type"]},
            "then": {"oneOf": [{"$ref": "#/$defs/engine"}, {"$ref": "#/$defs/manager"}]},
            "else": {"$ref": "#/$defs/image"},
        }},
    }  # fmt: skip
    return shapes[key.kind]


def _matrix() -> dict[str, object]:
    combinations = {"type": "array", "items": {"type": "object", "additionalProperties": _TEXT}}
    return {
        "type": "object",
        "properties": {
            "include": {**combinations, "description": "Further combinations; each gives every value."},
            "exclude": {**combinations, "description": "Combinations to leave out; each gives some values."},
        },
        "additionalProperties": _LIST,
    }
