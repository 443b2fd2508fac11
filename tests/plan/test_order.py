"""The graph of targets: an order that respects needs, and every fault told before anything is built."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiln.errors import PlanError, UsageError
from kiln.plan.order import Node, Order, check_duplicates, make_order


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, Node], list[str]]:
    """(nodes by name, wanted names); needs go anywhere, so that some graphs have cycles."""
    count = draw(st.integers(1, 12))
    names = [f"n{number}" for number in range(count)]
    needs = draw(st.lists(st.lists(st.sampled_from(names), max_size=3), min_size=count, max_size=count))
    nodes = {
        name: Node(name, f"f:{number}", tuple(needs[number]))
        for number, name in enumerate(draw(st.permutations(names)))
    }
    return nodes, draw(st.lists(st.sampled_from(names), max_size=4, unique=True))


def reached(nodes: dict[str, Node], wanted: list[str]) -> set[str]:
    """What is wanted and all that it needs, found another way than the code under test does."""
    found: set[str] = set(wanted)
    while more := {need for name in found for need in nodes[name].needs} - found:
        found |= more
    return found


def is_circular(nodes: dict[str, Node], names: set[str]) -> bool:
    """Whether taking away what needs nothing, again and again, leaves something."""
    left = set(names)
    while free := {name for name in left if not set(nodes[name].needs) & left}:
        left -= free
    return bool(left)


@given(graphs())
def test_any_graph(given_graph: tuple[dict[str, Node], list[str]]) -> None:
    nodes, wanted = given_graph
    names = reached(nodes, wanted)
    try:
        order = make_order(nodes, wanted)
    except PlanError as bad:
        assert is_circular(nodes, names)
        check_cycle(nodes, names, bad)
    else:
        assert not is_circular(nodes, names)
        check_order(nodes, names, order)


def check_cycle(nodes: dict[str, Node], names: set[str], bad: PlanError) -> None:
    """What is printed is a path along needs that ends where it began, with every place."""
    path = bad.message.partition(": ")[2].split(" -> ")
    assert path[0] == path[-1] and len(set(path)) == len(path) - 1 and set(path) <= names
    assert all(need in nodes[name].needs for name, need in itertools.pairwise(path))
    assert all(f"{name} ({nodes[name].place})" in bad.detail for name in path)


def check_order(nodes: dict[str, Node], names: set[str], order: Order) -> None:
    place = {name: number for number, name in enumerate(order.names)}
    assert set(place) == names and len(order.names) == len(names), "only what is needed, each once"
    for name in order.names:
        assert set(order.needs[name]) == set(nodes[name].needs)
        assert all(place[need] < place[name] and name in order.needed_by[need] for need in order.needs[name])
        assert order.depth[name] == max((order.depth[need] + 1 for need in order.needs[name]), default=0)
        assert order.height[name] == max((order.height[above] + 1 for above in order.needed_by[name]), default=0)


def test_what_needs_nothing_stays_where_it_is_written() -> None:
    nodes = check_duplicates(Node(name, "", ("c",) if name == "a" else ()) for name in "badc")
    assert make_order(nodes, "abcd").names == ("b", "d", "c", "a")


def test_a_long_chain() -> None:
    nodes = {
        f"n{number}": Node(f"n{number}", "", (f"n{number + 1}",) if number < 4999 else ()) for number in range(5000)
    }
    assert make_order(nodes, ["n0"]).depth["n0"] == 4999


def test_duplicates_name_both_places() -> None:
    with pytest.raises(PlanError, match=r"'a' is defined twice: at f:1 and at g:2") as caught:
        check_duplicates([Node("a", "f:1"), Node("b"), Node("a", "g:2")])
    assert caught.value.where == "g:2"


NODES = {
    "app": Node("app", "f:1", ("lib",)),
    "lib": Node("lib", "f:2", enabled=False),
    "odd": Node("odd", "f:3", ("libb",)),
}


@pytest.mark.parametrize(
    ("wanted", "kind", "message", "hint"),
    [
        (["ap"], UsageError, "there is no target 'ap'", "app"),
        (["lib"], PlanError, "'lib' is disabled", "enable: true"),
        (["app"], PlanError, "'app' needs 'lib', which is disabled at f:2", "Enable 'lib'"),
        (["odd"], PlanError, "'odd' needs 'libb', which does not exist", "lib"),
    ],
)
def test_what_cannot_be_made(wanted: list[str], kind: type[PlanError], message: str, hint: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        make_order(NODES, wanted)
    assert hint in caught.value.hint
