"""Native HCL files -> bodies. The grammar is python-hcl2's; it sees the skeleton that `hclscan` makes.

Its table is built when it is first needed (python-hcl2 keeps a copy beside its own files where it can write there): reading
it in takes 0.05 s, so a name alone, as in `${TAG}`, is read without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Struct

from kiln.errors import UsageError
from kiln.sources.hcl import evaluate as hcl
from kiln.sources.hcl.body import Attribute, Block, Body
from kiln.sources.hcl.evaluate import Node
from kiln.sources.hcl.scan import Masked, Span, Text, file_text, mask
from kiln.sources.hcl.template import constant, read_template
from kiln.sources.hcl.value import number

_MAX_DEPTH = 150
_PREFIX = "x=("
_NAME = re.compile(r"[ \t\r\n]*([A-Za-z_][A-Za-z0-9_-]*)[ \t\r\n]*")
_OTHER_WORDS = frozenset({"true", "false", "null", "if", "in", "for", "for_each", "else", "endif", "endfor"})
Tree: TypeAlias = Any


def parse(content: str, file: str) -> Body:
    """The body of a native HCL file; raises `UsageError` with the line of what is wrong."""
    text = file_text(content, file)
    masked = mask(text, 0, len(content))
    return _Reader(text, masked, 0).body(_tree(text, masked.skeleton, 0).children[0])


def parse_expression(text: Text, begin: int, end: int, depth: int = 0) -> Node:
    """The expression between two offsets."""
    if depth > 30:
        raise text.error(begin, "expressions are nested too deeply")
    name = _NAME.fullmatch(text.content, begin, end)
    if name and name[1] not in _OTHER_WORDS:
        return hcl.Name(text.place(name.start(1)), name[1])
    masked = mask(text, begin, end, "(")
    tree = _tree(text, _PREFIX + masked.skeleton + ")", begin - len(_PREFIX))
    attributes = [child for child in tree.children[0].children if _is(child, "attribute")]
    if len(attributes) != 1 or len(tree.children[0].children) > 2:
        raise text.error(begin, "an expression is not understood")
    return _Reader(text, masked, begin - len(_PREFIX), depth).node(attributes[0].children[-1])


def parse_template(text: Text) -> Node:
    """A whole text as a template without escape sequences, as JSON strings are."""
    if "${" not in text.content and "%{" not in text.content:
        return hcl.Literal(text.place(0), text.content)
    span = Span(0, len(text.content), len(text.content))
    return read_template(text, span, parse_expression, escapes=False)


def _tree(text: Text, skeleton: str, shift: int) -> Tree:
    """The grammar's tree of a skeleton whose offsets are those of the text less `shift`."""
    from hcl2.api import parses_to_tree
    from lark.exceptions import UnexpectedInput

    try:
        return parses_to_tree(skeleton)
    except UnexpectedInput as bad:
        at = min(max(bad.pos_in_stream or 0, 0) + shift, len(text.content))
        raise _not_understood(text, skeleton, at, at - shift) from None
    except RecursionError:
        raise UsageError("the file is nested too deeply", where=text.file) from None


def _not_understood(text: Text, skeleton: str, at: int, offset: int) -> UsageError:
    rest = skeleton[offset:].split("\n", 1)[0].strip()
    if not skeleton[offset:].strip().strip(")") or offset >= len(skeleton):
        return text.error(at, "something is missing at the end", "Look for a bracket that is not closed.")
    if not rest:
        return text.error(at, "something is missing at the end of the line")
    return text.error(at, f"{text.content[at : at + 40].splitlines()[0].strip()!r} is not understood here")


def _is(tree: Tree, name: str) -> bool:
    return getattr(tree, "data", "") == name


def _rules(tree: Tree) -> list[Tree]:
    """The children without tokens, line breaks and comments."""
    return [child for child in tree.children if hasattr(child, "data") and child.data != "new_line_or_comment"]


def _words(tree: Tree) -> list[str]:
    """The values of the tokens among the children."""
    return [str(child).strip() for child in tree.children if not hasattr(child, "data")]


class _Reader(Struct):
    """Makes nodes of one tree; `shift` is added to its offsets."""

    text: Text
    masked: Masked
    shift: int
    depth: int = 0
    nested: int = 0

    def place(self, tree: Tree) -> str:
        """Where a tree begins."""
        return self.text.place(self.at(tree))

    def at(self, tree: Tree) -> int:
        """The offset in the text at which a tree begins."""
        return int(getattr(tree.meta, "start_pos", 0)) + self.shift

    def body(self, tree: Tree) -> Body:
        """The attributes and blocks of a `body`."""
        found = Body()
        for child in _rules(tree):
            if child.data == "attribute":
                self._attribute(child, found)
            elif child.data == "block":
                found.blocks.append(self._block(child))
        return found

    def _attribute(self, tree: Tree, into: Body) -> None:
        name = _words(tree.children[0])[0]
        if name in into.attributes:
            raise UsageError(f"{name} is set twice", where=self.place(tree), hint="Keep one of them.")
        into.attributes[name] = Attribute(name, self.node(tree.children[-1]), self.place(tree))

    def _block(self, tree: Tree) -> Block:
        self._enter(tree)
        first, *rest = _rules(tree)
        *labels, body = rest
        block = Block(_words(first)[0], tuple(map(self._label, labels)), self.body(body), self.place(tree))
        self.nested -= 1
        return block

    def _label(self, tree: Tree) -> str:
        return constant(self.node(tree)) if tree.data == "string" else _words(tree)[0]

    def _enter(self, tree: Tree) -> None:
        self.nested += 1
        if self.nested > _MAX_DEPTH:
            raise UsageError("the file is nested too deeply", where=self.place(tree))

    def node(self, tree: Tree) -> Node:
        """The expression of a tree."""
        read = _READERS.get(tree.data)
        if read is None:
            raise UsageError(f"{tree.data} is not understood here", where=self.place(tree))
        self._enter(tree)
        made = read(self, tree)
        self.nested -= 1
        return made

    def inner(self, tree: Tree) -> Node:
        """`(...)`, or a term that is another rule."""
        return self.node(_rules(tree)[0])

    def string(self, tree: Tree) -> Node:
        """A quoted text or heredoc."""
        span = self.masked.spans[self.at(tree)]
        return read_template(self.text, span, self._below, escapes=not span.heredoc)

    def _below(self, text: Text, begin: int, end: int) -> Node:
        return parse_expression(text, begin, end, self.depth + 1)

    def number(self, tree: Tree) -> Node:
        """A number."""
        place, word = self.place(tree), _words(tree)[0]
        try:
            return hcl.Literal(place, number(word))
        except UsageError as bad:
            raise bad.at(place) from None

    def literal(self, tree: Tree) -> Node:
        """true, false or null."""
        return hcl.Literal(self.place(tree), {"true": True, "false": False, "null": None}[_words(tree)[0]])

    def name(self, tree: Tree) -> Node:
        """A variable."""
        return hcl.Name(self.place(tree), _words(tree)[0])

    def conditional(self, tree: Tree) -> Node:
        """`a ? b : c`."""
        condition, yes, no = map(self.node, _rules(tree))
        return hcl.Conditional(self.place(tree), condition, yes, no)

    def binary(self, tree: Tree) -> Node:
        """`a + b`. Long chains lean to the left; they are followed in a loop."""
        terms = []
        while _is(tree, "binary_op"):
            left, term = _rules(tree)[:2]
            terms.append(term)
            tree = left
        node = self.node(tree)
        for term in reversed(terms):
            sign, right = _rules(term)
            node = hcl.Binary(self.place(term), _words(sign)[-1].split()[-1], node, self.node(right))
        return node

    def unary(self, tree: Tree) -> Node:
        """`-a` and `!a`."""
        return hcl.Unary(self.place(tree), _words(tree)[0], self.node(_rules(tree)[0]))

    def items(self, tree: Tree) -> Node:
        """`[a, b]`."""
        return hcl.ListOf(self.place(tree), tuple(map(self.node, _rules(tree))))

    def members(self, tree: Tree) -> Node:
        """`{a = b}`."""
        pairs = [(self._key(elem.children[0]), self.node(elem.children[-1])) for elem in _rules(tree)]
        return hcl.ObjectOf(self.place(tree), tuple(pairs))

    def _key(self, tree: Tree) -> Node:
        child = tree.children[0]
        if child.data in ("keyword", "literal_value"):
            return hcl.Literal(self.place(tree), _words(child)[0])
        node = self.node(child)
        bare = _is(child, "expr_term") and not _words(child)
        if bare and isinstance(node, hcl.Name):
            return hcl.Literal(node.place, node.name)
        if bare and isinstance(node, hcl.Literal) and _is(child.children[0], "literal_value"):
            return hcl.Literal(node.place, _words(child.children[0])[0])
        return node

    def call(self, tree: Tree) -> Node:
        """`f(a, b...)`."""
        names = [_words(child)[0] for child in _rules(tree) if child.data == "identifier"]
        given = [child for child in _rules(tree) if child.data == "arguments"]
        arguments = tuple(map(self.node, _rules(given[0]))) if given else ()
        spread = bool(given) and "..." in _words(given[0])
        return hcl.Call(self.place(tree), "::".join(names), arguments, spread)

    def index(self, tree: Tree) -> Node:
        """`a[b]` and `a.0`."""
        of, key = _rules(tree)
        return hcl.Member(self.place(tree), self.node(of), self._step(key))

    def splat(self, tree: Tree) -> Node:
        """`a[*].b` and `a.*.b`."""
        of, splat = _rules(tree)
        return hcl.Splat(self.place(tree), self.node(of), tuple(map(self._step, _rules(splat))))

    def _step(self, tree: Tree) -> Node:
        if tree.data == "short_index":
            return hcl.Literal(self.place(tree), number(_words(tree)[-1]))
        if tree.data == "get_attr":
            return hcl.Literal(self.place(tree), _words(_rules(tree)[0])[0])
        return self.node(_rules(tree)[0])

    def for_list(self, tree: Tree) -> Node:
        """`[for ...]`."""
        intro, value, *rest = _rules(tree)
        names, over = self._intro(intro)
        return hcl.ForList(self.place(tree), names, over, self.node(value), self._condition(rest))

    def for_object(self, tree: Tree) -> Node:
        """`{for ...}`."""
        intro, key, value, *rest = _rules(tree)
        names, over = self._intro(intro)
        made = (self.node(key), self.node(value), "..." in _words(tree), self._condition(rest))
        return hcl.ForObject(self.place(tree), names, over, *made)

    def _intro(self, tree: Tree) -> tuple[tuple[str, ...], Node]:
        *names, over = _rules(tree)
        return tuple(_words(name)[0] for name in names), self.node(over)

    def _condition(self, rest: list[Tree]) -> Node | None:
        return self.node(_rules(rest[0])[0]) if rest else None


_READERS: dict[str, Callable[[_Reader, Tree], Node]] = {
    "expr_term": _Reader.inner, "string": _Reader.string, "int_lit": _Reader.number, "float_lit": _Reader.number,
    "literal_value": _Reader.literal, "identifier": _Reader.name, "keyword": _Reader.name,
    "conditional": _Reader.conditional, "binary_op": _Reader.binary, "unary_op": _Reader.unary,
    "tuple": _Reader.items, "object": _Reader.members, "function_call": _Reader.call, "index_expr_term": _Reader.index,
    "get_attr_expr_term": _Reader.index, "attr_splat_expr_term": _Reader.splat, "full_splat_expr_term": _Reader.splat,
    "for_tuple_expr": _Reader.for_list, "for_object_expr": _Reader.for_object,
}  # fmt: skip
