"""What the names in bake files stand for: variables, functions, and attributes of targets and groups.

Each is worked out when it is first needed, so that they may be written in any order; going round is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct, field

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import KilnError, UsageError
from kiln.oci import platform
from kiln.sources.buildx import variables as bakevariables
from kiln.sources.buildx.keys import KNOWN
from kiln.sources.hcl import evaluate as hcl
from kiln.sources.hcl.body import Attribute, Block, Body
from kiln.sources.hcl.functions import FUNCTIONS, LANGUAGE
from kiln.sources.hcl.template import constant
from kiln.sources.hcl.value import Function, Value

_MAX_CHAIN = 40
_VARIABLE_KEYS = ("default", "type", "description", "sensitive")
_FUNCTION_KEYS = ("params", "variadic_params", "variadic_param", "result")
_GROUP_KEYS = ("targets", "description")
_KEYS = {"variable": _VARIABLE_KEYS, "function": _FUNCTION_KEYS, "group": _GROUP_KEYS, "target": KNOWN}


class Made(Struct, frozen=True):
    """One target or group of a block; the rounds of a matrix make several, each with a `scope` of its own."""

    name: str
    block: Block
    scope: hcl.Scope


class World(Struct):
    """The scope of all files together; the later file's variables, functions and groups replace those of the earlier."""

    environment: Mapping[str, str]
    variables: dict[str, Block] = field(default_factory=dict)
    attributes: dict[str, Attribute] = field(default_factory=dict)
    functions: dict[str, Block] = field(default_factory=dict)
    groups: dict[str, Block] = field(default_factory=dict)
    targets: list[Block] = field(default_factory=list)
    made: dict[str, list[Made]] = field(default_factory=dict)
    known: dict[str, Value] = field(default_factory=dict)
    active: list[str] = field(default_factory=list)

    def add(self, body: Body) -> None:
        """Takes the contents of one more file; raises `UsageError` for blocks and keys that there are not."""
        self.attributes |= body.attributes
        tables = {"variable": self.variables, "function": self.functions, "group": self.groups}
        for block in body.blocks:
            _check(block)
            if block.kind == "target":
                self.targets.append(block)
            else:
                tables[block.kind][block.labels[0]] = block

    @contextlib.contextmanager
    def _entered(self, what: str) -> Iterator[None]:
        if what in self.active:
            circle = " -> ".join([*self.active[self.active.index(what) :], what])
            raise UsageError(f"this goes round: {circle}")
        if len(self.active) >= _MAX_CHAIN:
            raise UsageError("names stand for each other too deeply")
        self.active.append(what)
        try:
            yield
        finally:
            self.active.pop()

    def variable(self, name: str) -> Value:
        """A variable, attribute, built-in name, or the targets or groups; raises `UsageError`."""
        if name not in self.known:
            with self._entered(name):
                self.known[name] = self._variable(name)
        return self.known[name]

    def _variable(self, name: str) -> Value:
        if name in ("target", "group"):
            return _Blocks(self, name)
        if name in self.variables:
            return self._block_variable(name, self.variables[name])
        if name in self.attributes:
            return hcl.evaluate(self.attributes[name].value, self)
        if name == "BAKE_CMD_CONTEXT":
            return "cwd://"
        if name == "BAKE_LOCAL_PLATFORM":
            return str(platform.local())
        known = (*self.variables, *self.attributes, "BAKE_CMD_CONTEXT", "BAKE_LOCAL_PLATFORM", "target", "group")
        raise UsageError(f"there is no variable {name}", hint=did_you_mean(name, known))

    def _block_variable(self, name: str, block: Block) -> Value:
        given = self.attributes.get(name) or block.body.attributes.get("default")
        wanted = bakevariables.type_of(block)
        try:
            default = hcl.evaluate(given.value, self) if given else None if wanted else ""
            return bakevariables.from_environment(name, default, wanted, self.environment)
        except KilnError as bad:
            raise bad.at(given.place if given else block.place) from None

    def check_variables(self) -> None:
        """Works out every variable and checks what they demand of their values."""
        for name in (*self.variables, *self.attributes):
            try:
                self.variable(name)
            except KilnError as bad:
                place = self.variables[name].place if name in self.variables else self.attributes[name].place
                raise bad.at(place) from None
        for block in self.variables.values():
            bakevariables.validate(block, self)

    def function(self, name: str) -> Function:
        """A function of the files or of HCL; raises `UsageError`."""
        if name in self.functions:
            return lambda *given: self._call(name, self.functions[name], given)
        if name == "homedir":
            return lambda: self.environment.get("HOME", "/")
        if name not in FUNCTIONS:
            known = (*FUNCTIONS, *LANGUAGE, *self.functions, "homedir")
            raise UsageError(f"there is no function {name}", hint=did_you_mean(name, known))
        return FUNCTIONS[name]

    def _call(self, name: str, block: Block, given: Sequence[Value]) -> Value:
        attributes = block.body.attributes
        names = _parameters(attributes.get("params"))
        rest = attributes.get("variadic_params") or attributes.get("variadic_param")
        if len(given) < len(names) or (len(given) > len(names) and not rest):
            raise UsageError(f"{len(names)} values are needed, not {len(given)}")
        if "result" not in attributes:
            raise UsageError(f"the function {name} has no result", where=block.place)
        scope = dict(zip(names, given, strict=False))
        if rest:
            scope[_parameter(rest.value)] = tuple(given[len(names) :])
        with self._entered(f"{name}()"):
            return hcl.evaluate(attributes["result"].value, hcl.Local(self, scope))


def _check(block: Block) -> None:
    """Raises `UsageError` for a block that is none of bake's, is not labelled, or has attributes that there are not."""
    if block.kind not in _KEYS:
        raise UsageError(f"there is no block {block.kind}", where=block.place, hint=did_you_mean(block.kind, _KEYS))
    if len(block.labels) != 1:
        example = f'{block.kind} "NAME" {{'
        raise UsageError(f"a {block.kind} has one name", where=block.place, hint=f"Write {example} ... }}.")
    keys = _KEYS[block.kind]
    for attribute in block.body.attributes.values():
        if attribute.name not in keys:
            hint = did_you_mean(attribute.name, keys) or f"Known are {', '.join(sorted(keys))}."
            raise UsageError(f"a {block.kind} has no {attribute.name!r}", where=attribute.place, hint=hint)
    for inner in block.body.blocks:
        if (block.kind, inner.kind) != ("variable", "validation"):
            raise UsageError(f"a {block.kind} has no block {inner.kind}", where=inner.place)


def _parameters(attribute: Attribute | None) -> list[str]:
    if attribute is None:
        return []
    if not isinstance(attribute.value, hcl.ListOf):
        raise UsageError("params is a list of names", where=attribute.place)
    return [_parameter(node) for node in attribute.value.items]


def _parameter(node: hcl.Node) -> str:
    return node.name if isinstance(node, hcl.Name) else constant(node)


class _Blocks(Struct, frozen=True):
    """`target` or `group` as a name: its members are those of the files."""

    world: World
    kind: str

    def member(self, name: str) -> Value:
        """The target or group of that name."""
        if self.kind == "group":
            made = [Made(name, self.world.groups[name], self.world)] if name in self.world.groups else []
            known = list(self.world.groups)
        else:
            made, known = self.world.made.get(name, []), list(self.world.made)
        if not made:
            raise UsageError(f"there is no {self.kind} {name}", hint=did_you_mean(name, known))
        return _Attributes(self.world, self.kind, name, tuple(made))


class _Attributes(Struct, frozen=True):
    """`target.NAME`: its members are the attributes that are written there, without those it inherits."""

    world: World
    kind: str
    name: str
    made: tuple[Made, ...]

    def member(self, name: str) -> Value:
        """The value of an attribute, null if it is not set."""
        if name == "name":
            return self.name
        if name not in _KEYS[self.kind]:
            raise UsageError(f"a {self.kind} has no {name!r}", hint=did_you_mean(name, _KEYS[self.kind]))
        for made in reversed(self.made):
            if attribute := made.block.body.attributes.get(name):
                with self.world._entered(f"{self.kind}.{self.name}.{name}"):
                    return hcl.evaluate(attribute.value, made.scope)
        return None
