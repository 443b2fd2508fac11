"""The schema says what the loader does: one table makes both, and the documented catalogs are valid."""

from __future__ import annotations

import datetime
import json
import re

import pytest
import yaml

from kiln.errors import UsageError
from kiln.sources.catalog import load as catalog
from kiln.sources.catalog import schema
from kiln.sources.catalog.keys import FORMS, TOP
from tests.sources.gitpeers import mirrors
from tests.sources.test_catalog import LEGACY, RICH

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "number": (int, float), "null": type(None)}


def faults(rule, value, root, place=""):
    """What of a value is against a schema; of JSON schema, what ours uses."""
    if rule is True:
        return []
    found = []
    if "$ref" in rule:
        found += faults(root["$defs"][rule["$ref"].rpartition("/")[2]], value, root, place)
    if "type" in rule:
        kinds = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
        if not any(
            isinstance(value, TYPES[kind]) and (kind != "number" or not isinstance(value, bool)) for kind in kinds
        ):
            return [f"{place} is no {kinds}"]
    if ("enum" in rule and value not in rule["enum"]) or ("const" in rule and value != rule["const"]):
        found.append(f"{place} is {value!r}")
    if "pattern" in rule and isinstance(value, str) and not re.search(rule["pattern"], value):
        found.append(f"{place} does not match")
    if "anyOf" in rule and all(faults(one, value, root, place) for one in rule["anyOf"]):
        found += [f"{place}: none of anyOf"]
    if "oneOf" in rule and sum(not faults(one, value, root, place) for one in rule["oneOf"]) != 1:
        found += [f"{place}: not one of oneOf"]
    if "if" in rule:
        found += faults(rule["else" if faults(rule["if"], value, root) else "then"], value, root, place)
    if isinstance(value, dict):
        found += [f"{place} has no {name}" for name in rule.get("required", ()) if name not in value]
        for name, inner in value.items():
            if name in rule.get("properties", {}):
                found += faults(rule["properties"][name], inner, root, f"{place}/{name}")
            elif not any(re.search(pattern, name) for pattern in rule.get("patternProperties", {})):
                other = rule.get("additionalProperties", True)
                found += (
                    [f"{place} has no key {name}"] if other is False else faults(other, inner, root, f"{place}/{name}")
                )
    if isinstance(value, list) and "items" in rule:
        found += [fault for n, item in enumerate(value) for fault in faults(rule["items"], item, root, f"{place}/{n}")]
    return found


def check(text):
    return faults(schema.schema(), yaml.safe_load(text), schema.schema())


def test_the_documented_catalogs_are_valid():
    assert check(LEGACY) == [] and check(RICH) == []


@pytest.mark.parametrize(
    "text",
    [
        "images: [{id: a, imag: b}]", "images: [{image: b}]", "images: {a: b}", "imges: []", "images: [{id: [a]}]",
        "images: [{id: a, push: maybe}]", "images: [{id: a, type: other}]", "images: [{id: a, network: bridge}]",
        "images: [{id: a, matrix: {v: one}}]", "images: [{id: a, bootstrap: {include: [x]}}]", "{}", "version: 2\nimages: []",
        "images: [{id: a, type: manager, build_image_name: b, build_image_dockerfile: c}]", "images: [a]",
        "defaults: {id: a}\nimages: []", "images: [{id: a, engine_repo: b}]", "groups: {a: {b: c}}\nimages: []",
    ],
)  # fmt: skip
def test_what_the_loader_refuses_the_schema_refuses(text, tmp_path):
    path = tmp_path / "kiln.yml"
    path.write_text(text)
    with pytest.raises(UsageError):
        catalog.load(path, environment={}, mirrors=mirrors(tmp_path), now=datetime.datetime(2024, 1, 2))
    assert check(text)


def test_every_key_of_the_loader_is_in_the_schema_with_words():
    made = schema.schema()
    assert json.loads(json.dumps(made)) == made
    for kind, form in {"top": TOP, **FORMS}.items():
        shape = made if kind == "top" else made["$defs"][kind or "image"]
        assert set(shape["properties"]) == set(form)
        assert all(len(key["description"]) > 10 for key in shape["properties"].values())


SAMPLES = {
    "text": "a: 1",
    "flag": "[x]",
    "texts": "{a: b}",
    "pairs": "word",
    "map": "[x]",
    "network": "x",
    "bootstrap": "x",
    "matrix": "[]",
}


@pytest.mark.parametrize("kind", list(FORMS))
def test_every_key_is_read_by_the_loader(kind, tmp_path):
    """A value of the wrong shape is refused at its line, so none is passed over."""
    least = {
        "engine": "id: i, type: engine, build_image_name: n, build_image_dockerfile: d, engine_repo: r, enable: false",
        "manager": "id: i, type: manager, build_image_name: n, build_image_dockerfile: d, engine_image_id: i, enable: false",
        "": "id: i, enable: false",
    }[kind]
    for key in FORMS[kind].values():
        words = [word for word in least.split(", ") if not word.startswith(f"{key.name}:")]
        wrong = "{a: 1}" if key.kind == "text" else SAMPLES[key.kind]
        lines = [*words, f"{key.name}: {wrong}"]
        path = tmp_path / "kiln.yml"
        path.write_text("images:\n  - " + "\n    ".join(lines) + "\n")
        with pytest.raises(UsageError) as caught:
            catalog.load(path, environment={}, mirrors=mirrors(tmp_path), now=datetime.datetime(2024, 1, 2))
        assert caught.value.where == f"kiln.yml:{len(lines) + 1}", (key, str(caught.value))
