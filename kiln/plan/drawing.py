"""A plan as a table, as JSON, as DOT (Graphviz) and as an SVG picture."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from kiln.plan.picture import svg


class Node(Struct, frozen=True):
    """A target as it is shown; `decision` is build, skip or pull."""

    name: str
    decision: str
    reason: str
    needs: tuple[str, ...] = ()
    depth: int = 0
    images: tuple[str, ...] = ()
    pushes: tuple[str, ...] = ()
    digest: str = ""
    key: str = ""
    place: str = ""


def summary(nodes: Sequence[Node]) -> str:
    """One line of counts."""
    counts = Counter(node.decision for node in nodes)
    words = ", ".join(f"{counts[decision]} to {decision}" for decision in ("build", "pull", "skip") if counts[decision])
    return f"{len(nodes)} target{'s' * (len(nodes) != 1)}: {words or 'nothing to do'}"


def table(nodes: Sequence[Node]) -> str:
    """Lines of name, decision and reason in the order of building; long reasons go on in the next line."""
    if not nodes:
        return summary(nodes) + "\n"
    name_width = max(6, *(len(node.name) for node in nodes))
    room = max(30, shutil.get_terminal_size((120, 24)).columns - name_width - 11)
    lines = [f"{'TARGET':<{name_width}}  {'DOES':<6} WHY"]
    for node in nodes:
        first, *rest = _wrapped(node.reason, room)
        lines.append(f"{node.name:<{name_width}}  {node.decision:<6} {first}")
        lines += [f"{'':<{name_width + 9}}{line}" for line in rest]
    return "\n".join([*lines, summary(nodes)]) + "\n"


def _wrapped(text: str, room: int) -> list[str]:
    if len(text) <= room:
        return [text]
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def json(nodes: Sequence[Node]) -> str:
    """A document with `targets`, each with name, decision, reason, needs, depth, images, pushes, digest, key and place."""
    targets = [{**msgspec.to_builtins(_fields(node))} for node in nodes]
    return msgspec.json.format(msgspec.json.encode({"targets": targets}), indent=2).decode() + "\n"


def _fields(node: Node) -> dict[str, object]:
    return {
        "name": node.name, "decision": node.decision, "reason": node.reason, "needs": list(node.needs), "depth": node.depth,
        "images": list(node.images), "push": list(node.pushes), "digest": node.digest, "key": node.key, "place": node.place,
    }  # fmt: skip


_DOT_COLORS = {"build": "#f5c26b", "skip": "#cfd6dd", "pull": "#9cc7ee"}


def dot(nodes: Sequence[Node]) -> str:
    """A directed graph for Graphviz: an arrow leads from what is needed to what needs it."""
    lines = ["digraph plan {", "  rankdir=LR;", '  node [shape=box, style="rounded,filled", fontname="sans-serif"];']
    for node in nodes:
        label = f'{_quoted(node.name)[:-1]}\\n{node.decision}"'
        color = _DOT_COLORS.get(node.decision, "white")
        lines.append(f'  {_quoted(node.name)} [label={label}, fillcolor="{color}", tooltip={_quoted(node.reason)}];')
    lines += [f"  {_quoted(need)} -> {_quoted(node.name)};" for node in nodes for need in node.needs]
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def picture(nodes: Sequence[Node]) -> str:
    """An SVG picture: columns by depth, colours by decision; reasons appear as tooltips."""
    return svg([(node.name, node.decision, node.reason, node.needs, node.depth) for node in nodes], summary(nodes))


FORMS: Mapping[str, Callable[[Sequence[Node]], str]] = {"table": table, "json": json, "dot": dot, "svg": picture}
