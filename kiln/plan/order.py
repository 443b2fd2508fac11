"""The graph of targets: who needs whom, checked before anything is built."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import PlanError, UsageError


class Node(Struct, frozen=True):
    """A target as the graph sees it: its name, where it is written, what it needs (names), whether it may be made."""

    name: str
    place: str = ""
    needs: tuple[str, ...] = ()
    enabled: bool = True


class Order(Struct, frozen=True):
    """Targets in an order in which each comes after what it needs. `needs` and `needed_by` are direct neighbours; `depth`
    is the length of the longest way down, `height` of the longest way up (both 0 at an end)."""

    names: tuple[str, ...]
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needed_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    depth: Mapping[str, int] = field(default_factory=dict)
    height: Mapping[str, int] = field(default_factory=dict)


def check_duplicates(nodes: Iterable[Node]) -> dict[str, Node]:
    """The nodes by name; raises `PlanError` that names both places of a name that is there twice."""
    found: dict[str, Node] = {}
    for node in nodes:
        first = found.setdefault(node.name, node)
        if first is not node:
            raise PlanError(
                f"the target {node.name!r} is defined twice: at {first.place} and at {node.place}",
                where=node.place,
                hint="Names have to be unique: rename one of them.",
            )
    return found


def make_order(nodes: Mapping[str, Node], wanted: Iterable[str]) -> Order:
    """The order of the wanted targets and of all they need; raises `PlanError` for what is missing, disabled or circular,
    and `UsageError` for a wanted name that does not exist."""
    chosen = _chosen(nodes, wanted)
    needs = {name: tuple(dict.fromkeys(nodes[name].needs)) for name in chosen}
    needed_by: dict[str, list[str]] = {name: [] for name in chosen}
    for name in chosen:
        for need in needs[name]:
            needed_by[need].append(name)
    names = _sorted(nodes, needs, needed_by)
    depth: dict[str, int] = {}
    for name in names:
        depth[name] = max((depth[need] + 1 for need in needs[name]), default=0)
    height: dict[str, int] = {}
    for name in reversed(names):
        height[name] = max((height[above] + 1 for above in needed_by[name]), default=0)
    return Order(tuple(names), needs, {name: tuple(above) for name, above in needed_by.items()}, depth, height)


def _chosen(nodes: Mapping[str, Node], wanted: Iterable[str]) -> list[str]:
    """What is wanted and what that needs, in the order in which it is written."""
    waiting = list(wanted)
    for name in waiting:
        if name not in nodes:
            raise UsageError(f"there is no target {name!r}", hint=did_you_mean(name, list(nodes)) or _listed(nodes))
        if not nodes[name].enabled:
            raise PlanError(
                f"the target {name!r} is disabled", where=nodes[name].place, hint="Set `enable: true` to have it made."
            )
    seen = set(waiting)
    while waiting:
        node = nodes[waiting.pop()]
        for need in node.needs:
            if need not in seen:
                _check_need(nodes, node, need)
                seen.add(need)
                waiting.append(need)
    return [name for name in nodes if name in seen]


def _check_need(nodes: Mapping[str, Node], node: Node, need: str) -> None:
    other = nodes.get(need)
    if other is None:
        raise PlanError(
            f"the target {node.name!r} needs {need!r}, which does not exist",
            where=node.place,
            hint=did_you_mean(need, list(nodes)),
        )
    if not other.enabled:
        raise PlanError(
            f"the target {node.name!r} needs {need!r}, which is disabled at {other.place}",
            where=node.place,
            hint=f"Enable {need!r}, or disable {node.name!r} too.",
        )


def _listed(nodes: Mapping[str, Node]) -> str:
    names = list(nodes)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"Targets are {', '.join(names[:20])}{more}." if names else "There are no targets at all."


def _sorted(
    nodes: Mapping[str, Node], needs: Mapping[str, tuple[str, ...]], needed_by: Mapping[str, list[str]]
) -> list[str]:
    """A topological order that stays as near as possible to the order in which targets are written."""
    place = {name: number for number, name in enumerate(needs)}
    names = list(needs)
    missing = {name: len(below) for name, below in needs.items()}
    ready = [place[name] for name in names if not missing[name]]
    heapq.heapify(ready)
    found = []
    while ready:
        name = names[heapq.heappop(ready)]
        found.append(name)
        for above in needed_by[name]:
            missing[above] -= 1
            if not missing[above]:
                heapq.heappush(ready, place[above])
    if len(found) < len(names):
        _raise_cycle(nodes, needs, {name for name in names if missing[name]})
    return found


def _raise_cycle(nodes: Mapping[str, Node], needs: Mapping[str, tuple[str, ...]], left: set[str]) -> None:
    """Shows one cycle among what could not be ordered: everything left has a need that is left too."""
    path: list[str] = []
    name = min(left)
    while name not in path:
        path.append(name)
        name = next(need for need in needs[name] if need in left)
    path = [*path[path.index(name) :], name]
    places = "\n".join(f"  {step} ({nodes[step].place})" if nodes[step].place else f"  {step}" for step in path[:-1])
    raise PlanError(
        f"targets need one another in a circle: {' -> '.join(path)}",
        where=nodes[path[0]].place,
        detail=places,
        hint="Take one of these needs away.",
    )
