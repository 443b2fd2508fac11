"""HCL text before it is parsed: where quoted texts, heredocs, comments and `${...}` begin and end.

`mask` blanks texts and comments so that the grammar of python-hcl2 sees only the skeleton; what the texts hold is read
by `hclsyntax` from the original. Offsets stay the same in both.
"""

from __future__ import annotations

import bisect
import re

from msgspec import Struct, field

from kiln.errors import UsageError

MAX_SIZE = 2 << 20
_MAX_NESTED = 40
_HEREDOC = re.compile(r"<<(-?)([A-Za-z_][\w.-]*)[ \t]*\r?\n")
_FOR = re.compile(r"\{\s*for\s+[A-Za-z_]")
_NEWLINES_HIDDEN = {"(", "[", "for"}


class Text(Struct, frozen=True):
    """A text to read HCL from, and where it is written: `line` is that of its first character, `breaks` are the
    offsets of line ends (none for a JSON string, whose line breaks are not the file's)."""

    content: str
    file: str
    line: int = 1
    breaks: tuple[int, ...] = ()

    def place(self, offset: int) -> str:
        """`file:line` of an offset."""
        return f"{self.file}:{self.line_of(offset)}"

    def line_of(self, offset: int) -> int:
        """The line of an offset in the file."""
        return self.line + bisect.bisect_left(self.breaks, offset)

    def error(self, offset: int, message: str, hint: str = "") -> UsageError:
        """What is wrong at an offset."""
        return UsageError(message, where=self.place(offset), hint=hint)


def file_text(content: str, file: str) -> Text:
    """The text of a whole file; raises `UsageError` if it is too large."""
    if len(content) > MAX_SIZE:
        raise UsageError(f"the file is larger than {MAX_SIZE >> 20} MiB", where=file)
    return Text(content, file, breaks=tuple(found.start() for found in re.finditer("\n", content)))


class Span(Struct, frozen=True):
    """A quoted text or heredoc: `begin` to `end` is what stands between its marks, `after` the offset behind them."""

    begin: int
    end: int
    after: int
    heredoc: bool = False
    flush: bool = False


class Masked(Struct, frozen=True):
    """The skeleton of a piece of text, and the texts in it by the offset at which they begin."""

    skeleton: str
    spans: dict[int, Span] = field(default_factory=dict)


def mask(text: Text, begin: int, end: int, inside: str = "") -> Masked:
    """The skeleton of `begin` to `end`; `inside` is the bracket that surrounds it. Raises `UsageError`."""
    content, out, spans = text.content, [], {}
    open_brackets = [inside]
    at = begin
    while at < end:
        char = content[at]
        if span := span_at(text, at):
            spans[at] = span
            out.append('"' + "x" * (span.after - at - 2) + '"')
            at = span.after
        elif after := comment_end(text, at):
            out.append(" " * (after - at))
            at = after
        else:
            if inside and char in ")]}" and len(open_brackets) == 1:
                raise text.error(at, f"{char} closes nothing")
            out.append(_shown(char, open_brackets))
            _track(char, content, at, open_brackets)
            at += 1
    return Masked("".join(out), spans)


def _shown(char: str, open_brackets: list[str]) -> str:
    if char == "\ufeff" or (char in "\r\n" and open_brackets[-1] in _NEWLINES_HIDDEN):
        return " "
    return char


def _track(char: str, content: str, at: int, open_brackets: list[str]) -> None:
    if char == "{" and _FOR.match(content, at):
        open_brackets.append("for")
    elif char in "([{":
        open_brackets.append(char)
    elif char in ")]}" and len(open_brackets) > 1:
        open_brackets.pop()


def span_at(text: Text, at: int, depth: int = 0) -> Span | None:
    """The quoted text or heredoc that begins at an offset, if one does."""
    char = text.content[at]
    if char == '"':
        end = _quoted_end(text, at + 1, depth)
        return Span(at + 1, end, end + 1)
    if char == "<" and (mark := _HEREDOC.match(text.content, at)):
        return _heredoc(text, at, mark)
    return None


def _heredoc(text: Text, at: int, mark: re.Match[str]) -> Span:
    closing = re.compile(rf"^[ \t]*{re.escape(mark[2])}[ \t]*\r?$", re.MULTILINE).search(text.content, mark.end())
    if not closing:
        raise text.error(at, f"the heredoc <<{mark[2]} is not ended", f"End it with a line that holds {mark[2]} alone.")
    return Span(mark.end(), closing.start(), closing.end() - closing[0].endswith("\r"), True, bool(mark[1]))


def comment_end(text: Text, at: int) -> int:
    """The offset behind the comment that begins at an offset, 0 if none does. A line's end is not part of it."""
    content = text.content
    if content[at] == "#" or content.startswith("//", at):
        end = content.find("\n", at)
        return len(content) if end < 0 else end
    if content.startswith("/*", at):
        end = content.find("*/", at + 2)
        if end < 0:
            raise text.error(at, "the comment /* is not ended")
        return end + 2
    return 0


def _quoted_end(text: Text, at: int, depth: int) -> int:
    """The offset of the quote that ends a quoted text."""
    content, begin = text.content, at - 1
    while at < len(content):
        char = content[at]
        if char == '"':
            return at
        if char == "\n":
            raise text.error(begin, "a quoted text ends on the line it begins on", "Write \\n, or a heredoc: <<EOT.")
        if char == "\\":
            at += 2
        elif content.startswith(("$${", "%%{"), at):
            at += 3
        elif content.startswith(("${", "%{"), at):
            at = braces_end(text, at + 2, depth + 1) + 1
        else:
            at += 1
    raise text.error(begin, 'the text is not ended with "')


def braces_end(text: Text, at: int, depth: int = 0) -> int:
    """The offset of the `}` that ends what `${` or `%{` began in front of `at`."""
    if depth > _MAX_NESTED:
        raise text.error(at, f"texts are nested in each other more than {_MAX_NESTED} times")
    begin, opened = at, 0
    while at < len(text.content):
        char = text.content[at]
        if span := span_at(text, at, depth):
            at = span.after
            continue
        if after := comment_end(text, at):
            at = after
            continue
        if char == "}" and not opened:
            return at
        opened += (char == "{") - (char == "}")
        at += 1
    raise text.error(begin - 2, "${ is not ended with }", "Write $${ for the characters themselves.")
