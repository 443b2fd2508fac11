"""Words: quotes, escapes and variable expansion as a Dockerfile has them.

Rules: the "Environment replacement" section of the Dockerfile reference; pattern forms follow POSIX shell
parameter expansion (XCU 2.6.2) without bracket expressions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct, field

_SPECIAL = "@*#?-$!0"


class WordError(ValueError):
    """A word that cannot be expanded; the text says why."""


class Expansion(Struct):
    """What became of a word: the text, the words it splits into, and the variables that were found and not found."""

    text: str = ""
    words: list[str] = field(default_factory=list)
    matched: set[str] = field(default_factory=set)
    unmatched: set[str] = field(default_factory=set)


class Rules(Struct, frozen=True):
    """How to read quotes and escapes. `keep_unset` leaves references to unset variables as they are written."""

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    skip_quotes: bool = False
    keep_unset: bool = False


def expand(text: str, env: Mapping[str, str], rules: Rules = Rules()) -> Expansion:
    """Expands one word; raises `WordError`, its text naming the word."""
    if not any(char in text for char in f"$'\"{rules.escape}"):
        return Expansion(text, text.split())
    reader = _Reader(text, env, rules)
    try:
        result, words = reader.until("", rules.raw_escapes)
    except WordError as bad:
        raise WordError(f'failed to process "{text}": {bad}') from None
    return Expansion(result, words, reader.matched, reader.unmatched)


class _Words:
    """Splits what is expanded without quotes at white space; quoted text stays together."""

    __slots__ = ("_inside", "_word", "done")

    def __init__(self) -> None:
        self.done: list[str] = []
        self._word = ""
        self._inside = False

    def add(self, text: str) -> None:
        for char in text:
            if not char.isspace():
                self.add_raw(char)
            elif self._inside and self._word:
                self.done.append(self._word)
                self._word, self._inside = "", False

    def add_raw(self, text: str) -> None:
        self._word += text
        self._inside = True

    def finish(self) -> list[str]:
        if self._word:
            self.done.append(self._word)
            self._word, self._inside = "", False
        return self.done


class _Reader:
    def __init__(self, text: str, env: Mapping[str, str], rules: Rules) -> None:
        self.text, self.env, self.rules = text, env, rules
        self.position = 0
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def take(self) -> str:
        char = self.peek()
        self.position += 1
        return char

    def until(self, stop: str, raw_escapes: bool) -> tuple[str, list[str]]:
        """Everything up to `stop` (or the end, if that is empty), expanded."""
        result: list[str] = []
        words = _Words()
        while char := self.peek():
            if stop and char == stop:
                self.take()
                return "".join(result), words.finish()
            if char == "$":
                value = self._dollar()
                result.append(value)
                words.add(value)
            elif char in "'\"" and not self.rules.skip_quotes:
                value = self._single() if char == "'" else self._double(raw_escapes)
                result.append(value)
                words.add_raw(value)
            else:
                self._plain(result, words, raw_escapes)
        if stop:
            raise WordError(f"unexpected end of statement while looking for matching {stop}")
        return "".join(result), words.finish()

    def _plain(self, result: list[str], words: _Words, raw_escapes: bool) -> None:
        char = self.take()
        if char != self.rules.escape:
            words.add(char)
            result.append(char)
            return
        if raw_escapes:
            words.add_raw(char)
            result.append(char)
        char = self.take()
        if char:
            words.add_raw(char)
            result.append(char)

    def _single(self) -> str:
        end = self.text.find("'", self.position + 1)
        if end < 0:
            raise WordError("unexpected end of statement while looking for matching single-quote")
        quoted = self.text[self.position + 1 : end]
        self.position = end + 1
        return f"'{quoted}'" if self.rules.raw_quotes else quoted

    def _double(self, raw_escapes: bool) -> str:
        quote = self.take() if self.rules.raw_quotes else self.take() and ""
        result = [quote]
        while char := self.peek():
            if char == '"':
                self.take()
                return "".join(result) + quote
            if char == "$":
                result.append(self._dollar())
                continue
            self.take()
            if char == self.rules.escape:
                if raw_escapes:
                    result.append(char)
                following = self.peek()
                if not following:
                    continue
                if following in ('"', "$", self.rules.escape):
                    char = self.take()
            result.append(char)
        raise WordError("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self.take()
        if self.peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value, found = self._get(name)
            return f"${name}" if not found and self.rules.keep_unset else value
        self.take()
        if not self.peek():
            raise WordError("syntax error: missing '}'")
        if self.peek() in "{}:":
            raise WordError("syntax error: bad substitution")
        return self._braced(self._name())

    def _braced(self, name: str) -> str:
        char = self.take()
        if char == "}":
            value, found = self._get(name)
            return f"${{{name}}}" if not found and self.rules.keep_unset else value
        if char == "/":
            return self._replace(name)
        colon = char == ":"
        if colon:
            char = self.take()
        if not char or char not in "+-?#%":
            raise WordError(f"unsupported modifier ({':' if colon else ''}{char}) in substitution")
        word = self._operand("}", char in "#%", "syntax error: missing '}'")
        value, found = self._get(name)
        if not found and self.rules.keep_unset:
            return f"${{{name}{':' if colon else ''}{char}{word}}}"
        if char in "#%":
            return _trim(value, word, char)
        return _default(name, char, word, value, found and not (colon and not value), found)

    def _operand(self, stop: str, raw: bool, missing: str) -> str:
        try:
            return self.until(stop, raw)[0]
        except WordError:
            if not self.peek():
                raise WordError(missing) from None
            raise

    def _replace(self, name: str) -> str:
        everywhere = self.peek() == "/"
        if everywhere:
            self.take()
        pattern = self._operand("/", True, "syntax error: missing '/' in ${}")
        replacement = self._operand("}", True, "syntax error: missing '}'")
        value, found = self._get(name)
        if not found and self.rules.keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        return _regex(pattern, greedy=True).sub(lambda _: replacement, value, count=0 if everywhere else 1)

    def _name(self) -> str:
        match = re.compile(r"\d+|[@*#?\-$!]|[^\W\d]\w*").match(self.text, self.position)
        if match is None:
            return ""
        self.position = match.end()
        return match.group()

    def _get(self, name: str) -> tuple[str, bool]:
        if name in self.env:
            self.matched.add(name)
            return self.env[name], True
        self.unmatched.add(name)
        return "", False


def _default(name: str, operator: str, word: str, value: str, usable: bool, is_set: bool) -> str:
    if operator == "-":
        return value if usable else word
    if operator == "+":
        return word if usable else ""
    if not usable:
        fallback = "is not allowed to be empty" if is_set else "is not allowed to be unset"
        raise WordError(f"{name}: {word or fallback}")
    return value


def _trim(value: str, pattern: str, side: str) -> str:
    """`#` and `##` cut a prefix, `%` and `%%` a suffix: the shortest, or the longest where doubled."""
    greedy = pattern.startswith(side)
    regex = _regex(pattern[1:] if greedy else pattern, greedy=greedy)
    if side == "#":
        match = regex.match(value)
        return value[match.end() :] if match else value
    starts = range(len(value) + 1) if greedy else range(len(value), -1, -1)
    for start in starts:
        if regex.fullmatch(value, start):
            return value[:start]
    return value


def _regex(pattern: str, *, greedy: bool) -> re.Pattern[str]:
    """`*` and `?` as in a shell; a backslash escapes them and itself."""
    out: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            out.append(".*" if greedy else ".*?")
        elif char == "?":
            out.append(".")
        elif char == "\\":
            following = pattern[position : position + 1]
            if following in ("}", "/"):
                continue
            if following not in ("*", "?", "\\") or not following:
                raise WordError(f"invalid pattern ({pattern}) in substitution: invalid escape '\\{following}'")
            out.append(re.escape(following))
            position += 1
        else:
            out.append(re.escape(char))
    return re.compile("".join(out))
