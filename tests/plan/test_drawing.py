"""Plans as tables, JSON, DOT and SVG: every one of them can be read back."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from xml.etree import ElementTree

import pytest

from kiln.plan import drawing
from kiln.plan.drawing import Node

SVG = "{http://www.w3.org/2000/svg}"
NODES = [
    Node("lib", "skip", "unchanged", images=("lib:1",), digest="sha256:aa", key="k", place="kiln.yml:2"),
    Node("app", "build", 'a "quoted" <tag> & more \\', ("lib",), 1, pushes=("h:5000/app:1",)),
    Node("tool", "pull", "made elsewhere", (), 0),
]


def many(count: int) -> list[Node]:
    """A graph of layers with names of all lengths."""
    dice = random.Random(count)
    nodes: list[Node] = []
    for number in range(count):
        needs = tuple({dice.choice(nodes).name for _ in range(min(3, number))}) if number > 5 else ()
        depth = max((node.depth + 1 for node in nodes if node.name in needs), default=0)
        name = f"n{number}-" + "x" * dice.randrange(60)
        nodes.append(Node(name, dice.choice(("build", "skip", "pull")), "why", needs, depth))
    return nodes


def test_table() -> None:
    lines = drawing.table(NODES).splitlines()
    assert lines[0].split() == ["TARGET", "DOES", "WHY"] and lines[1].split() == ["lib", "skip", "unchanged"]
    assert lines[-1] == "3 targets: 1 to build, 1 to pull, 1 to skip"
    assert drawing.table([]) == "0 targets: nothing to do\n"


def test_long_reasons_go_on_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = drawing.table([Node("app", "build", "word " * 40)])
    assert all(len(line) <= 60 for line in text.splitlines()) and text.count("word") == 40


def test_json() -> None:
    targets = json.loads(drawing.json(NODES))["targets"]
    assert [target["name"] for target in targets] == ["lib", "app", "tool"]
    assert targets[1] == {
        "name": "app", "decision": "build", "reason": NODES[1].reason, "needs": ["lib"], "depth": 1, "images": [],
        "push": ["h:5000/app:1"], "digest": "", "key": "", "place": "",
    }  # fmt: skip


def test_dot() -> None:
    text = drawing.dot(NODES)
    assert '"lib" -> "app";' in text and r'tooltip="a \"quoted\" <tag> & more \\"' in text
    assert r'label="app\nbuild"' in text
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg", "-o", "/dev/null"], input=text.encode(), check=True)


def boxes(root: ElementTree.Element) -> dict[str, tuple[float, float, float, float]]:
    """(left, top, right, bottom) by the name of the node, read from the picture."""
    found = {}
    for group in root.iter(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        if title is not None and rect is not None:
            x, y, width, height = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
            found[(title.text or "").partition(":")[0]] = (x, y, x + width, y + height)
    return found


@pytest.mark.parametrize("nodes", [NODES, [], many(7), many(200)], ids=["three", "none", "seven", "many"])
def test_svg(nodes: list[Node]) -> None:
    """Well-formed; every node and edge is there; nothing lies on anything else or outside."""
    root = ElementTree.fromstring(drawing.picture(nodes))
    found = boxes(root)
    assert set(found) == {node.name for node in nodes}
    edges = [path.attrib["d"] for path in root.iter(f"{SVG}path")]
    assert len(edges) == sum(len(node.needs) for node in nodes)
    assert sorted(edges) == sorted(edge for edge in edges if any(begins_at(edge, box) for box in found.values()))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    places = list(found.values())
    assert all(left >= 0 and top >= 0 and right <= width and bottom <= height for left, top, right, bottom in places)
    for number, one in enumerate(places):
        assert not any(overlap(one, other) for other in places[number + 1 :])


def begins_at(edge: str, box: tuple[float, float, float, float]) -> bool:
    x, y = map(float, edge[1:].partition("C")[0].split())
    return abs(x - box[2]) < 0.2 and box[1] < y < box[3]


def overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_names_fit_into_their_boxes() -> None:
    root = ElementTree.fromstring(drawing.picture([Node("x" * 200, "build", "")]))
    shown = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert any(text.endswith("…") and len(text) < 40 for text in shown)


def test_what_is_said_of_a_node() -> None:
    texts = "".join(ElementTree.fromstring(drawing.picture(NODES)).itertext())
    assert 'app: is built (a "quoted" <tag> & more \\)' in texts and "3 targets: 1 to build" in texts
