"""Statements -> typed instructions and stages.

Each instruction keeps its words unexpanded; the engine expands them with the variables of the moment. Which words
expand is written here, in `expand` of each class, following the list in the Dockerfile reference.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field
from msgspec.structs import replace

from kiln.dockerfile.flags import Mount, parse_mount
from kiln.dockerfile.parser import (
    Dockerfile,
    Heredoc,
    Place,
)
from kiln.errors import DockerfileError

Expander = Callable[[str], str]
Pairs = tuple[tuple[str, str], ...]


class Instruction(Struct, frozen=True, kw_only=True):
    """One instruction: the keyword as it was written, its whole line, where it stands."""

    keyword: str
    code: str
    place: Place
    on_build: bool = False

    @property
    def name(self) -> str:
        """The keyword in upper case."""
        return self.keyword.upper()

    def expand(self, expander: Expander) -> Instruction:
        """With the variables in its words replaced; itself where nothing in it expands."""
        return self


class Env(Instruction, frozen=True, kw_only=True):
    pairs: Pairs
    legacy: bool = False

    def expand(self, expander: Expander) -> Env:
        return replace(self, pairs=tuple((expander(key), expander(value)) for key, value in self.pairs))


class Label(Env, frozen=True, kw_only=True):
    pass


class Maintainer(Instruction, frozen=True, kw_only=True):
    author: str


class Arg(Instruction, frozen=True, kw_only=True):
    """`pairs`: (name, default or None, description from the comment above)."""

    pairs: tuple[tuple[str, str | None], ...]
    comments: tuple[str, ...] = ()


class Copy(Instruction, frozen=True, kw_only=True):
    """COPY and ADD. `heredocs` are inline files; flags that only one of the two has keep their default in the other."""

    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    source_stage: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None

    @property
    def is_add(self) -> bool:
        """Whether this is ADD: archives unpack, URLs are fetched."""
        return self.keyword.lower() == "add"

    def expand(self, expander: Expander) -> Copy:
        return replace(
            self,
            sources=tuple(expander(source) for source in self.sources),
            destination=expander(self.destination),
            chown=expander(self.chown),
            chmod=expander(self.chmod),
            checksum=expander(self.checksum),
        )

    def expand_heredocs(self, expander: Expander) -> Copy:
        """With variables replaced in the inline files whose name is not quoted; quotes in them stay."""
        files = (
            replace(item, content=expander(item.text), chomp=False) if item.expand else item for item in self.heredocs
        )
        return replace(self, heredocs=tuple(files))


class Run(Instruction, frozen=True, kw_only=True):
    """RUN. `args` is one string for the shell, or the JSON array; `mounts` are still unexpanded CSV."""

    args: tuple[str, ...]
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()
    mount_texts: tuple[str, ...] = ()
    network: str = ""

    def mounts(self, expander: Expander) -> tuple[Mount, ...]:
        """The mounts with variables replaced; raises `DockerfileError`."""
        try:
            return tuple(parse_mount(text, expander) for text in self.mount_texts)
        except ValueError as bad:
            raise DockerfileError(str(bad), where=str(self.place)) from None


class Command(Instruction, frozen=True, kw_only=True):
    """CMD, ENTRYPOINT and SHELL."""

    args: tuple[str, ...]
    shell: bool


class HealthCheck(Instruction, frozen=True, kw_only=True):
    """`test` as in the config; times are nanoseconds."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Words(Instruction, frozen=True, kw_only=True):
    """EXPOSE and VOLUME: a list of words."""

    words: tuple[str, ...]

    def expand(self, expander: Expander) -> Words:
        if self.name == "EXPOSE":
            return self
        return replace(self, words=tuple(expander(word) for word in self.words))


class Text(Instruction, frozen=True, kw_only=True):
    """WORKDIR, USER and STOPSIGNAL: one text."""

    text: str

    def expand(self, expander: Expander) -> Text:
        return replace(self, text=expander(self.text))


class OnBuild(Instruction, frozen=True, kw_only=True):
    trigger: str


class Stage(Struct):
    """One FROM with what follows it. `name` is lower case, empty where the stage has none."""

    index: int
    base: str
    name: str
    platform: str
    code: str
    keyword: str
    place: Place
    written_name: str = ""
    as_keyword: str = ""
    comments: tuple[str, ...] = ()
    instructions: list[Instruction] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The name, or `stage-N`."""
        return self.name or f"stage-{self.index}"


class Program(Struct):
    """A whole Dockerfile: the ARGs before the first FROM, then the stages."""

    source: Dockerfile
    global_args: list[Arg] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
