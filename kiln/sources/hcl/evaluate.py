"""HCL expressions: each node evaluates itself in a scope.

The language is that of HashiCorp's specification (hcl/hclsyntax/spec.md). `hclsyntax` makes the nodes of native files,
`hcljson` those of JSON files.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from kiln.errors import KilnError, UsageError
from kiln.sources.hcl import value as values
from kiln.sources.hcl.operators import OPERATIONS, as_other, member
from kiln.sources.hcl.value import Function, Value, boolean, number, text, tidy


class Scope(Protocol):
    """Where names come from."""

    def variable(self, name: str) -> Value:
        """The value of a variable; raises `UsageError`."""
        ...

    def function(self, name: str) -> Function:
        """A function; raises `UsageError`."""
        ...


class Node(Protocol):
    """An expression."""

    @property
    def place(self) -> str:
        """`file:line`."""
        ...

    def evaluate(self, scope: Scope) -> Value:
        """Its value in a scope; raises `UsageError`."""
        ...


def evaluate(node: Node, scope: Scope) -> Value:
    """The value of an expression; raises `UsageError` with the place of the innermost expression that failed."""
    try:
        return node.evaluate(scope)
    except KilnError as bad:
        raise bad.at(node.place) from None
    except RecursionError:
        raise UsageError("the expression is nested too deeply", where=node.place) from None


class Local(Struct, frozen=True):
    """A scope with some more names."""

    outer: Scope
    names: Mapping[str, Value]

    def variable(self, name: str) -> Value:
        """One of the names, else one of the outer scope."""
        return self.names[name] if name in self.names else self.outer.variable(name)

    def function(self, name: str) -> Function:
        """The outer scope's."""
        return self.outer.function(name)


class Literal(Struct, frozen=True):
    """A number, a bool, null or a text without `${`."""

    place: str
    value: Value

    def evaluate(self, scope: Scope) -> Value:
        """Itself."""
        return self.value


class Name(Struct, frozen=True):
    """A variable."""

    place: str
    name: str

    def evaluate(self, scope: Scope) -> Value:
        """The variable's value."""
        return scope.variable(self.name)


class Template(Struct, frozen=True):
    """Texts and expressions one after the other. One expression alone keeps its type unless `joined`."""

    place: str
    parts: tuple[Node, ...]
    joined: bool = False

    def evaluate(self, scope: Scope) -> Value:
        """The text, or the value of the only expression."""
        if len(self.parts) == 1 and not self.joined and not isinstance(self.parts[0], Loop | Choice):
            return evaluate(self.parts[0], scope)
        return "".join(_inserted(part, scope) for part in self.parts)


def _inserted(part: Node, scope: Scope) -> str:
    value = evaluate(part, scope)
    try:
        return text(value)
    except UsageError as bad:
        hint = "Use join or jsonencode for lists and objects." if isinstance(value, tuple | dict) else ""
        raise UsageError(f"{bad.message} inside a text", where=part.place, hint=hint) from None


class Choice(Struct, frozen=True):
    """`%{if}` in a template."""

    place: str
    condition: Node
    yes: Node
    no: Node

    def evaluate(self, scope: Scope) -> Value:
        """The text that was chosen."""
        return evaluate(self.yes if boolean(evaluate(self.condition, scope)) else self.no, scope)


class Loop(Struct, frozen=True):
    """`%{for}` in a template."""

    place: str
    names: tuple[str, ...]
    over: Node
    body: Node

    def evaluate(self, scope: Scope) -> Value:
        """The texts of all rounds."""
        rounds = _rounds(self.names, evaluate(self.over, scope), scope)
        return "".join(text(evaluate(self.body, inner)) for inner in rounds)


def _rounds(names: tuple[str, ...], over: Value, scope: Scope) -> list[Scope]:
    return [Local(scope, dict(zip(names, pair[-len(names) :], strict=True))) for pair in values.pairs(over)]


class ListOf(Struct, frozen=True):
    """`[...]`."""

    place: str
    items: tuple[Node, ...]

    def evaluate(self, scope: Scope) -> Value:
        """The list."""
        return tuple(evaluate(item, scope) for item in self.items)


class ObjectOf(Struct, frozen=True):
    """`{...}`; a name as a key stands for itself."""

    place: str
    pairs: tuple[tuple[Node, Node], ...]

    def evaluate(self, scope: Scope) -> Value:
        """The object."""
        return {text(evaluate(key, scope)): evaluate(value, scope) for key, value in self.pairs}


class ForList(Struct, frozen=True):
    """`[for ... in ... : value if ...]`."""

    place: str
    names: tuple[str, ...]
    over: Node
    value: Node
    condition: Node | None = None

    def evaluate(self, scope: Scope) -> Value:
        """The list."""
        rounds = _chosen(_rounds(self.names, evaluate(self.over, scope), scope), self.condition)
        return tuple(evaluate(self.value, inner) for inner in rounds)


class ForObject(Struct, frozen=True):
    """`{for ... in ... : key => value... if ...}`; `grouped` collects the values of a key."""

    place: str
    names: tuple[str, ...]
    over: Node
    key: Node
    value: Node
    grouped: bool = False
    condition: Node | None = None

    def evaluate(self, scope: Scope) -> Value:
        """The object; raises `UsageError` where a key comes twice and is not grouped."""
        found: dict[str, list[Value]] = {}
        for inner in _chosen(_rounds(self.names, evaluate(self.over, scope), scope), self.condition):
            found.setdefault(text(evaluate(self.key, inner)), []).append(evaluate(self.value, inner))
        twice = [key for key, each in found.items() if len(each) > 1]
        if twice and not self.grouped:
            raise UsageError(f"the key {twice[0]!r} comes more than once", hint="Write ... after the value to group.")
        return {key: tuple(each) if self.grouped else each[0] for key, each in found.items()}


def _chosen(rounds: list[Scope], condition: Node | None) -> list[Scope]:
    return [inner for inner in rounds if condition is None or boolean(evaluate(condition, inner))]


class Member(Struct, frozen=True):
    """`of.name`, `of[key]` and `of.0`."""

    place: str
    of: Node
    key: Node

    def evaluate(self, scope: Scope) -> Value:
        """The member."""
        return member(evaluate(self.of, scope), evaluate(self.key, scope))


class Splat(Struct, frozen=True):
    """`of[*]` and `of.*` with the members that follow, taken of every element."""

    place: str
    of: Node
    keys: tuple[Node, ...]

    def evaluate(self, scope: Scope) -> Value:
        """The list; null gives an empty one, another single value a list of itself."""
        of = evaluate(self.of, scope)
        every: tuple[Value, ...] = of if isinstance(of, tuple) else () if of is None else (of,)
        for key in self.keys:
            name = evaluate(key, scope)
            every = tuple(member(each, name) for each in every)
        return every


class Unary(Struct, frozen=True):
    """`-of` or `!of`."""

    place: str
    sign: str
    of: Node

    def evaluate(self, scope: Scope) -> Value:
        """The negative or opposite."""
        value = evaluate(self.of, scope)
        return not boolean(value) if self.sign == "!" else tidy(-number(value))


class Binary(Struct, frozen=True):
    """Two values and what stands between them."""

    place: str
    sign: str
    left: Node
    right: Node

    def evaluate(self, scope: Scope) -> Value:
        """The result. Both sides are always evaluated."""
        return OPERATIONS[self.sign](evaluate(self.left, scope), evaluate(self.right, scope))


class Conditional(Struct, frozen=True):
    """`condition ? yes : no`."""

    place: str
    condition: Node
    yes: Node
    no: Node

    def evaluate(self, scope: Scope) -> Value:
        """The chosen value, as a text where the other is one."""
        chosen = boolean(evaluate(self.condition, scope))
        value = evaluate(self.yes if chosen else self.no, scope)
        if isinstance(value, bool | int | Decimal | tuple):
            try:
                return as_other(value, evaluate(self.no if chosen else self.yes, scope))
            except KilnError:
                return value
        return value


class Call(Struct, frozen=True):
    """A function with its arguments; `spread` hands on the elements of the last one."""

    place: str
    name: str
    arguments: tuple[Node, ...] = ()
    spread: bool = False

    def evaluate(self, scope: Scope) -> Value:
        """What the function gives."""
        if self.name in ("try", "can"):
            return self._attempt(scope)
        if self.name == "convert":
            return self._convert(scope)
        function = scope.function(self.name)
        given = [evaluate(argument, scope) for argument in self.arguments]
        if self.spread:
            given[-1:] = values.items(given[-1])
        try:
            return function(*given)
        except KilnError as bad:
            raise UsageError(f"{self.name}: {bad.message}", hint=bad.hint, where=bad.where or self.place) from None
        except TypeError:
            raise UsageError(f"{self.name}: not made for {len(given)} values", where=self.place) from None
        except (ValueError, ArithmeticError, OverflowError, LookupError) as bad:
            raise UsageError(f"{self.name}: {bad}", where=self.place) from None

    def _convert(self, scope: Scope) -> Value:
        from kiln.sources.hcl.types import fit, read_type

        if len(self.arguments) != 2:
            raise UsageError("convert: a value and a type are needed")
        return fit(evaluate(self.arguments[0], scope), read_type(self.arguments[1]))

    def _attempt(self, scope: Scope) -> Value:
        """The first argument that can be evaluated; `can` says whether there is one."""
        for argument in self.arguments:
            try:
                value = evaluate(argument, scope)
            except KilnError:
                continue
            return value if self.name == "try" else True
        if self.name == "can":
            return False
        raise UsageError("try: none of the expressions can be evaluated")
