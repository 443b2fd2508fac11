"""Templates of HCL: texts with `${...}`, `%{if}` and `%{for}`, in quotes, heredocs and JSON strings."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct, field
from msgspec.structs import replace

from kiln.errors import UsageError
from kiln.sources.hcl.evaluate import Choice, Literal, Loop, Node, Template
from kiln.sources.hcl.scan import Span, Text, braces_end

ReadExpression = Callable[[Text, int, int], Node]
_ESCAPE = re.compile(r'\\(?:([nrt"\\])|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.)|$)', re.DOTALL)
_SIMPLE = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_DIRECTIVE = re.compile(r"\s*(if|else|endif|for|endfor)\b")
_FOR = re.compile(r"\s*for\s+([A-Za-z_][\w-]*)\s*(?:,\s*([A-Za-z_][\w-]*)\s*)?\bin\b")
_MARK = re.compile(r"\$\$\{|%%\{|\$\{|%\{")


class _Piece(Struct, frozen=True):
    """A part of a template before directives are paired: `word` is empty for texts, `$` for expressions."""

    word: str
    at: int
    text: str = ""
    begin: int = 0
    end: int = 0
    left: bool = False
    right: bool = False


def read_template(text: Text, span: Span, read: ReadExpression, escapes: bool) -> Node:
    """The template between two offsets; `escapes` says that backslashes mean something. Raises `UsageError`."""
    pieces = _pieces(text, span, escapes)
    pieces = _trimmed(_lines(pieces) if span.heredoc else pieces)
    if span.flush:
        pieces = _flushed(pieces)
    reader = _Reader(text, pieces, read)
    parts = reader.parts(())
    place = text.place(max(span.begin - 1, 0))
    if not any(piece.word for piece in pieces):
        return Literal(place, "".join(piece.text for piece in pieces))
    return Template(place, parts, joined=span.heredoc)


def _pieces(text: Text, span: Span, escapes: bool) -> list[_Piece]:
    found: list[_Piece] = []
    at = span.begin
    while at < span.end:
        mark = _MARK.search(text.content, at, span.end)
        begin = mark.start() if mark else span.end
        if mark and escapes and _escaped(text.content, at, begin):
            begin, mark = begin + 1, None
        if begin > at:
            found.append(_Piece("", at, _plain(text, at, begin, escapes)))
        at = begin
        if mark and mark[0] in ("$${", "%%{"):
            found.append(_Piece("", at, mark[0][1:]))
            at += 3
        elif mark:
            end = braces_end(text, begin + 2)
            found.append(_marked(text, begin, min(end, span.end), mark[0]))
            at = end + 1
    return found


def _escaped(content: str, begin: int, at: int) -> bool:
    """Whether an odd number of backslashes stands before an offset."""
    return (at - begin - len(content[begin:at].rstrip("\\"))) % 2 == 1


def _plain(text: Text, begin: int, end: int, escapes: bool) -> str:
    plain = text.content[begin:end]
    if not escapes:
        return plain.replace("\r\n", "\n")

    def character(found: re.Match[str]) -> str:
        if found[1]:
            return _SIMPLE[found[1]]
        code = int(found[2] or found[3] or "110000", 16)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            hint = 'HCL knows \\n, \\r, \\t, \\", \\\\, \\uNNNN and \\UNNNNNNNN.'
            raise text.error(begin + found.start(), f"{found[0]} is not an escape sequence", hint)
        return chr(code)

    return _ESCAPE.sub(character, plain)


def _marked(text: Text, at: int, end: int, mark: str) -> _Piece:
    """The piece of a `${` or `%{` at an offset; `end` is that of its `}`."""
    begin, inner = at + 2, text.content
    left, right = inner.startswith("~", begin), end > begin + 2 and inner[end - 1] == "~"
    begin, end = begin + left, end - right
    if mark == "${":
        return _Piece("$", at, "", begin, end, left, right)
    word = _DIRECTIVE.match(inner, begin, end)
    if not word:
        raise text.error(at, "%{ is followed by if, else, endif, for or endfor", "Write %%{ for the characters.")
    return _Piece(word[1], at, "", begin, end, left, right)


def _trimmed(pieces: list[_Piece]) -> list[_Piece]:
    """The pieces without the white space that `~` takes away."""
    found = list(pieces)
    for index, piece in enumerate(pieces):
        if piece.left and index and not found[index - 1].word:
            found[index - 1] = replace(found[index - 1], text=found[index - 1].text.rstrip())
        if piece.right and index + 1 < len(found) and not found[index + 1].word:
            found[index + 1] = replace(found[index + 1], text=found[index + 1].text.lstrip())
    return found


def _lines(pieces: list[_Piece]) -> list[_Piece]:
    """The pieces of a heredoc, texts cut behind every line: `~` and flushing see one line at a time."""
    found = []
    for piece in pieces:
        parts = piece.text.split("\n") if not piece.word else []
        found += [replace(piece, text=line + "\n") for line in parts[:-1]]
        found += [replace(piece, text=parts[-1])] if parts and parts[-1] else [] if parts else [piece]
    return found


def _flushed(pieces: list[_Piece]) -> list[_Piece]:
    """The pieces of a `<<-` heredoc without the white space that all lines begin with; blank lines stay as they are."""
    fresh, indents = True, {}
    for index, piece in enumerate(pieces):
        blank = piece.text.endswith("\n") and not piece.text.strip()
        if fresh and not blank:
            indents[index] = 0 if piece.word else len(piece.text) - len(piece.text.lstrip())
        fresh = piece.text.endswith("\n")
    width = min(indents.values(), default=0)
    return [
        replace(piece, text=piece.text[width:]) if index in indents and not piece.word else piece
        for index, piece in enumerate(pieces)
    ]


class _Reader(Struct):
    """Pairs directives; `next` is the piece to be read."""

    text: Text
    pieces: list[_Piece]
    read: ReadExpression
    next: int = 0
    open: list[_Piece] = field(default_factory=list)

    def parts(self, until: tuple[str, ...]) -> tuple[Node, ...]:
        """The nodes up to a directive of `until`, which is left to be read, or up to the end if `until` is empty."""
        found: list[Node] = []
        while self.next < len(self.pieces):
            piece = self.pieces[self.next]
            if piece.word in until:
                return tuple(found)
            self.next += 1
            found.append(self._node(piece))
        if until:
            raise self.text.error(self.open[-1].at, f"%{{{self.open[-1].word}}} is not ended with %{{{until[-1]}}}")
        return tuple(found)

    def _node(self, piece: _Piece) -> Node:
        place = self.text.place(piece.at)
        if not piece.word:
            return Literal(place, piece.text)
        if piece.word == "$":
            return self.read(self.text, piece.begin, piece.end)
        if piece.word not in ("if", "for"):
            raise self.text.error(piece.at, f"%{{{piece.word}}} has no beginning")
        if len(self.open) > 20:
            raise self.text.error(piece.at, "directives are nested too deeply")
        self.open.append(piece)
        node = self._choice(piece, place) if piece.word == "if" else self._loop(piece, place)
        self.open.pop()
        return node

    def _choice(self, piece: _Piece, place: str) -> Node:
        begin = self.text.content.index("if", piece.begin) + 2
        condition = self.read(self.text, begin, piece.end)
        yes = self.parts(("else", "endif"))
        no: tuple[Node, ...] = ()
        if self._take().word == "else":
            no = self.parts(("endif",))
            self._take()
        return Choice(place, condition, Template(place, yes, True), Template(place, no, True))

    def _loop(self, piece: _Piece, place: str) -> Node:
        head = _FOR.match(self.text.content, piece.begin, piece.end)
        if not head:
            raise self.text.error(piece.at, "%{for} is not understood", "Write %{for NAME in LIST}.")
        over = self.read(self.text, head.end(), piece.end)
        body = self.parts(("endfor",))
        self._take()
        names = (head[1], head[2]) if head[2] else (head[1],)
        return Loop(place, names, over, Template(place, body, True))

    def _take(self) -> _Piece:
        self.next += 1
        return self.pieces[self.next - 1]


def constant(node: Node) -> str:
    """The text of a template without expressions; raises `UsageError` for another one."""
    if isinstance(node, Literal) and isinstance(node.value, str):
        return node.value
    raise UsageError("a text without ${...} is needed here", where=node.place)
