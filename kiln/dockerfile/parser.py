"""Dockerfile text -> statements: directives, comments, continuation lines, heredocs.

A statement is one instruction with its flags and the rest of its line still unparsed; `instructions` gives it a type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from msgspec import Struct, field

from kiln.dockerfile.words import Rules, WordError, expand
from kiln.errors import DockerfileError

_SPACE = re.compile(r"[\t\v\f\r ]+")
_DIRECTIVE = re.compile(r"^#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC = re.compile(r"^(\d*)<<(-?)([^<]*)$")
_DIRECTIVES = frozenset({"escape", "syntax", "check"})
_HEREDOC_KEYWORDS = frozenset({"add", "copy", "run"})


class Place(Struct, frozen=True):
    """Lines of a file, counted from 1, both ends included."""

    file: str
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.file}:{self.start}"


class Heredoc(Struct, frozen=True):
    """An inline document: its name, whether variables in it expand, whether leading tabs go (`<<-`)."""

    name: str
    expand: bool
    chomp: bool
    content: str = ""

    @property
    def text(self) -> str:
        """The content as it is used: without leading tabs where `<<-` asked for that."""
        return re.sub(r"(?m)^\t+", "", self.content) if self.chomp else self.content


class Statement(Struct, frozen=True):
    """One instruction as written. `code` is the whole line with continuations joined, `rest` what follows the flags."""

    keyword: str
    flags: tuple[str, ...]
    rest: str
    code: str
    place: Place
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()


class Dockerfile(Struct):
    """A parsed file: statements, parser directives, and the lines at which empty continuation lines stand."""

    name: str
    text: str
    statements: list[Statement] = field(default_factory=list)
    directives: dict[str, str] = field(default_factory=dict)
    empty_continuations: list[Place] = field(default_factory=list)

    @property
    def escape(self) -> str:
        """The escape character, backslash or backtick."""
        return self.directives.get("escape", "\\")

    def lines(self, place: Place) -> list[str]:
        """The source lines of a place, for error reports."""
        return self.text.splitlines()[place.start - 1 : place.end]


def parse(data: bytes, name: str) -> Dockerfile:
    """Parses a file; `name` is what places call it. Raises `DockerfileError` with the line."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    result = Dockerfile(name=name, text=text)
    if not text.strip():
        raise DockerfileError("the Dockerfile cannot be empty", where=name, hint="Begin with a FROM instruction.")
    _Parser(result).run()
    if not result.statements:
        raise DockerfileError("file with no instructions", where=name, hint="Begin with a FROM instruction.")
    return result


def parse_line(text: str, place: Place, escape: str) -> Statement:
    """One instruction given as text, for instance the trigger that an ONBUILD of a base image kept."""
    inner = Dockerfile(name=place.file, text=text)
    if escape != "\\":
        inner.directives["escape"] = escape
    _Parser(inner, directives=False).run()
    if len(inner.statements) != 1:
        raise DockerfileError("onbuild trigger should be a single expression", where=str(place))
    one = inner.statements[0]
    return Statement(one.keyword, one.flags, one.rest, one.code, place, one.heredocs)


class _Parser:
    def __init__(self, result: Dockerfile, *, directives: bool = True) -> None:
        self.result = result
        self.lines = [line for line in re.split(r"(?<=\n)", result.text) if line]
        self.number = 0
        self.looking_for_directives = directives
        self.continuation = _continuation(result.escape)
        self.comments: list[str] = []

    def run(self) -> None:
        while self.number < len(self.lines):
            line = self._next().rstrip("\r\n").lstrip()
            self._directive(line)
            if line.startswith("#"):
                self._comment(line[1:].strip())
                continue
            start = self.number
            line, ended = self._trim(line)
            if ended and not line:
                self.comments = []
                continue
            line = self._continue(line, ended, start)
            self._statement(line, start)
            self.comments = []

    def _comment(self, text: str) -> None:
        if text:
            self.comments.append(text)
        else:
            self.comments = []

    def _next(self) -> str:
        self.number += 1
        return self.lines[self.number - 1]

    def _directive(self, line: str) -> None:
        if not self.looking_for_directives:
            return
        match = _DIRECTIVE.match(line)
        key = match.group(1).lower() if match else ""
        if match is None or key not in _DIRECTIVES:
            self.looking_for_directives = False
            return
        if key in self.result.directives:
            raise self._bad(f"only one {key} parser directive can be used", self.number)
        value = match.group(2)
        if key == "escape":
            if value not in ("\\", "`"):
                raise self._bad(f"invalid escape token '{value}' does not match ` or \\", self.number)
            self.continuation = _continuation(value)
        self.result.directives[key] = value

    def _trim(self, line: str) -> tuple[str, bool]:
        """(line without its continuation character, whether the instruction ends with this line)."""
        if self.continuation.search(line):
            return self.continuation.sub(r"\1", line), False
        return line, True

    def _continue(self, line: str, ended: bool, start: int) -> str:
        empty = False
        while not ended and self.number < len(self.lines):
            following = self._next().rstrip("\r\n")
            stripped = following.lstrip()
            if stripped.startswith("#"):
                continue
            if not stripped:
                empty = True
                continue
            following, ended = self._trim(following)
            line += following
        if empty:
            self.result.empty_continuations.append(Place(self.result.name, self.number, self.number))
        return line

    def _statement(self, line: str, start: int) -> None:
        keyword, flags, rest = split_command(line)
        heredocs: tuple[Heredoc, ...] = ()
        if "<<" in line and _may_have_heredocs(keyword, rest):
            heredocs = tuple(self._read_heredocs(line, start))
        place = Place(self.result.name, start, self.number)
        statement = Statement(keyword, flags, rest, line.strip(), place, heredocs, tuple(self.comments))
        self.result.statements.append(statement)

    def _read_heredocs(self, line: str, start: int) -> Iterator[Heredoc]:
        for heredoc in _heredocs_of(line):
            content: list[str] = []
            while True:
                if self.number >= len(self.lines):
                    raise self._bad(
                        f"unterminated heredoc: nothing ends <<{heredoc.name}",
                        start,
                        hint=f"Put a line with only {heredoc.name} after the content.",
                    )
                raw = self._next()
                end = raw.rstrip("\r\n")
                if (end.lstrip("\t") if heredoc.chomp else end) == heredoc.name:
                    break
                content.append(raw)
            yield Heredoc(heredoc.name, heredoc.expand, heredoc.chomp, "".join(content))

    def _bad(self, message: str, line: int, hint: str = "") -> DockerfileError:
        return DockerfileError(message, where=f"{self.result.name}:{line}", hint=hint)


def _continuation(escape: str) -> re.Pattern[str]:
    token = re.escape(escape)
    return re.compile(rf"(^|[^{token}]){token}[ \t]*$")


def _may_have_heredocs(keyword: str, rest: str) -> bool:
    keyword = keyword.lower()
    if keyword == "onbuild" and rest:
        keyword, _, rest = split_command(rest)
        keyword = keyword.lower()
    return keyword in _HEREDOC_KEYWORDS and json_array(rest) is None


def split_command(line: str) -> tuple[str, tuple[str, ...], str]:
    """(keyword, flags, rest) of a line."""
    parts = _SPACE.split(line.strip(), maxsplit=1)
    if len(parts) == 1:
        return parts[0], (), ""
    flags, rest = _split_flags(parts[1])
    return parts[0], tuple(flags), rest.strip()


def _split_flags(text: str) -> tuple[list[str], str]:
    """The leading `--flag` words (quotes and escapes resolved) and what follows them."""
    flags: list[str] = []
    position = 0
    while True:
        while position < len(text) and text[position].isspace():
            position += 1
        if not text.startswith("--", position):
            return flags, text[position:]
        word, position = _flag_word(text, position)
        if word == "--":
            return flags, text[position:]
        if word:
            flags.append(word)


def _flag_word(text: str, position: int) -> tuple[str, int]:
    word: list[str] = []
    quote = ""
    while position < len(text):
        char = text[position]
        position += 1
        if not quote and char.isspace():
            break
        if not quote and char in "'\"":
            quote = char
        elif char == quote:
            quote = ""
        elif char == "\\":
            word.append(text[position : position + 1])
            position += 1
        else:
            word.append(char)
    return "".join(word), position


def json_array(rest: str) -> list[str] | None:
    """The strings of a JSON array, or None where `rest` is none; raises `ValueError` for other members than strings."""
    if not rest.lstrip().startswith("["):
        return None
    try:
        value = json.loads(rest)
    except ValueError:
        return None
    if not all(isinstance(item, str) for item in value):
        raise ValueError("when using JSON array syntax, arrays must be comprised of strings only")
    return list(value)


def split_space(rest: str) -> list[str]:
    """Words separated by white space, quotes not looked at."""
    return _SPACE.split(rest) if rest else []


def split_words(rest: str, escape: str) -> list[str]:
    """Words with quotes and escapes kept as they are; quotes hold white space together."""
    if "'" not in rest and '"' not in rest and escape not in rest:
        return rest.split()
    words: list[str] = []
    word: list[str] = []
    quote, started, position = "", False, 0
    while position < len(rest):
        char = rest[position]
        position += 1
        if not quote and char.isspace():
            if started or word:
                words.append("".join(word))
            word, started = [], False
            continue
        if char == escape and quote != "'":
            if position == len(rest):
                break
            char += rest[position]
            position += 1
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote, started = char, True
        word.append(char)
    if started or word:
        words.append("".join(word))
    return words


def parse_heredoc(word: str) -> Heredoc | None:
    """The heredoc that a word such as `<<EOF`, `<<-"EOF"` opens, or None; raises `WordError`."""
    match = _HEREDOC.match(word)
    if match is None or not match.group(3):
        return None
    words = expand(match.group(3), {}, Rules(keep_unset=True)).words
    if len(words) != 1:
        return None
    raw = expand(match.group(3), {}, Rules(keep_unset=True, raw_quotes=True)).words
    quotes = [sum(text.count(char) for char in "'\"") for text in (words[0], "".join(raw))]
    return Heredoc(words[0], quotes[0] == quotes[1], match.group(2) == "-")


def _heredocs_of(line: str) -> list[Heredoc]:
    try:
        words = expand(line, {}, Rules(raw_quotes=True, raw_escapes=True, keep_unset=True)).words
    except WordError:
        return []
    found = (parse_heredoc(word) for word in words)
    return [heredoc for heredoc in found if heredoc is not None]
