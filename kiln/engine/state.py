"""The state of a stage between two instructions, and what instructions without files do to it."""

from __future__ import annotations

import datetime
import posixpath
import signal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kiln.dockerfile.instructions import Command, Env, HealthCheck, Label, Maintainer, OnBuild, Text, Words
from kiln.dockerfile.words import Rules, WordError, expand
from kiln.engine.ports import parse_ports
from kiln.engine.quote import quote_list, quote_rune
from kiln.engine.wire import Stack
from kiln.errors import DockerfileError
from kiln.oci.digest import chain_id
from kiln.oci.image import Healthcheck, History, Image, ImageConfig, RootFS, RunConfig
from kiln.oci.platform import Platform
from kiln.store.layer import Layer

COMMENT = "buildkit.dockerfile.v0"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The time of what does not depend on time. zip files, and so Python wheels, cannot hold anything earlier.
TIMELESS = 315532800


class State(Struct, frozen=True):
    """An image in the making. `env` are the variables for expansion and commands (ENV and ARG), `args` the build
    arguments in the order of their ARG, `created` the latest time of a command that ran (seconds since the epoch)."""

    config: ImageConfig
    stack: Stack = Stack()
    env: tuple[tuple[str, str], ...] = ()
    args: tuple[tuple[str, str], ...] = ()
    created: int = 0
    epoch: int | None = None
    cmd_set: bool = False

    @property
    def variables(self) -> dict[str, str]:
        """The variables by name."""
        return dict(self.env)

    @property
    def chain(self) -> str:
        """The chainID of the layers so far."""
        return chain_id(self.stack.diff_ids)

    @property
    def run(self) -> RunConfig:
        """The config object of the image."""
        return self.config.config

    def with_run(self, **changes: object) -> State:
        """With other fields in the config object."""
        run = msgspec.structs.replace(self.run, **changes)
        return replace(self, config=msgspec.structs.replace(self.config, config=run))

    def with_env(self, name: str, value: str) -> State:
        """With a variable for expansion and commands."""
        return replace(self, env=tuple((self.variables | {name: value}).items()))

    def with_layer(self, layer: Layer, created: int) -> State:
        """With a layer on top; `created` is 0 for one that does not depend on time."""
        stack = Stack((*self.stack.diff_ids, layer.diff_id), (*self.stack.descriptors, layer.descriptor))
        return replace(self, stack=stack, created=max(self.created, created))

    def with_history(self, created_by: str, *, layer: bool = False) -> State:
        """With one more line of history."""
        line = History(created=self.time_text, created_by=created_by, comment=COMMENT, empty_layer=not layer)
        return replace(self, config=msgspec.structs.replace(self.config, history=[*self.config.history, line]))

    @property
    def time(self) -> int:
        """The time of what is made now: SOURCE_DATE_EPOCH, else the latest time of what went in."""
        return self.epoch if self.epoch is not None else max(self.created, TIMELESS)

    @property
    def time_text(self) -> str:
        """The same as RFC 3339."""
        return rfc3339(self.time)

    def image(self) -> Image:
        """The finished image."""
        rootfs = RootFS(diff_ids=list(self.stack.diff_ids))
        config = msgspec.structs.replace(self.config, rootfs=rootfs, created=self.time_text)
        return Image(config, self.stack.descriptors)


def rfc3339(seconds: int) -> str:
    """A time as `2026-01-31T12:00:00Z`."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> int:
    """Seconds since the epoch of an RFC 3339 time; 0 for one that cannot be read."""
    try:
        return max(0, int(datetime.datetime.fromisoformat(text[:19] + "+00:00").timestamp()))
    except ValueError:
        return 0


def scratch(platform: Platform, epoch: int | None) -> State:
    """The empty image."""
    config = ImageConfig(platform.architecture, platform.os, RunConfig(working_dir="/"), variant=platform.variant)
    return _started(State(config, epoch=epoch))


def from_image(image: Image, epoch: int | None) -> State:
    """An image as the base of a stage."""
    stack = Stack(image.diff_ids, image.layers)
    return _started(State(image.config, stack, created=seconds_of(image.config.created), epoch=epoch))


def from_stage(base: State) -> State:
    """A finished stage as the base of another."""
    return _started(replace(base, cmd_set=False), keep_env=True)


def _started(state: State, *, keep_env: bool = False) -> State:
    names = {entry.partition("=")[0] for entry in state.run.env or ()}
    if "PATH" not in names and state.config.os != "windows":
        state = state.with_run(env=[*(state.run.env or ()), f"PATH={DEFAULT_PATH}"])
    if not keep_env:
        pairs = [entry.partition("=") for entry in state.run.env or ()]
        state = replace(state, env=tuple((name, value) for name, _, value in pairs))
    return state


def apply_env(state: State, instruction: Env) -> State:
    """ENV: all values are expanded before any of them counts."""
    env = list(state.run.env or ())
    for name, value in instruction.pairs:
        state = state.with_env(name, value)
        place = next((index for index, entry in enumerate(env) if entry.partition("=")[0] == name), len(env))
        env[place : place + 1] = [f"{name}={value}"]
    words = "".join(f" {name}={value}" for name, value in instruction.pairs)
    return state.with_run(env=env).with_history(f"ENV{words}")


def apply_label(state: State, instruction: Label) -> State:
    """LABEL."""
    labels = {**(state.run.labels or {}), **dict(instruction.pairs)}
    words = "".join(f" {name}={value}" for name, value in instruction.pairs)
    return state.with_run(labels=labels).with_history(f"LABEL{words}")


def apply_maintainer(state: State, instruction: Maintainer) -> State:
    """MAINTAINER."""
    config = msgspec.structs.replace(state.config, author=instruction.author)
    return replace(state, config=config).with_history(f"MAINTAINER {instruction.author}")


def with_shell(state: State, args: tuple[str, ...]) -> list[str]:
    """A command line for the shell of the moment."""
    return [*(state.run.shell or ["/bin/sh", "-c"]), " ".join(args)]


def apply_command(state: State, instruction: Command) -> State:
    """CMD, ENTRYPOINT (which takes back an inherited CMD) and SHELL."""
    args = with_shell(state, instruction.args) if instruction.shell else list(instruction.args)
    if instruction.name == "SHELL":
        return state.with_run(shell=args).with_history(f"SHELL [{' '.join(args)}]")
    line = f"{instruction.name} {quote_list(args)}"
    if instruction.name == "CMD":
        return replace(state.with_run(cmd=args or None, args_escaped=True), cmd_set=True).with_history(line)
    state = state.with_run(entrypoint=args or None)
    if not state.cmd_set:
        state = state.with_run(cmd=None)
    return state.with_history(line)


def apply_healthcheck(state: State, instruction: HealthCheck) -> State:
    """HEALTHCHECK."""
    check = Healthcheck(
        list(instruction.test), instruction.interval, instruction.timeout, instruction.start_period,
        instruction.start_interval, instruction.retries,
    )  # fmt: skip
    text = (
        f"HEALTHCHECK &{{{quote_list(check.test)}"
        f' "{_go_duration(check.interval)}" "{_go_duration(check.timeout)}" "{_go_duration(check.start_period)}"'
        f' "{_go_duration(check.start_interval)}" {quote_rune(check.retries)}}}'
    )
    return state.with_run(healthcheck=check).with_history(text)


def _go_duration(nanoseconds: int) -> str:
    """A duration as Go prints it: `1m30s`, `500ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if nanoseconds < size * 1000:
            return f"{nanoseconds / size:.9g}{unit}"
    seconds = nanoseconds / 10**9
    hours, minutes = int(seconds // 3600), int(seconds % 3600 // 60)
    rest = f"{seconds % 60:.9g}s"
    if hours:
        return f"{hours}h{minutes}m{rest}"
    return f"{minutes}m{rest}" if minutes else rest


def apply_words(state: State, instruction: Words, escape: str) -> State:
    """EXPOSE and VOLUME."""
    if instruction.name == "VOLUME":
        if not all(instruction.words):
            raise DockerfileError("VOLUME specified can not be an empty string", where=str(instruction.place))
        volumes: dict[str, dict[str, object]] = {
            **(state.run.volumes or {}),
            **{word: {} for word in instruction.words},
        }
        return state.with_run(volumes=volumes).with_history(f"VOLUME [{' '.join(instruction.words)}]")
    try:
        words = [part for word in instruction.words for part in expand(word, state.variables, Rules(escape)).words]
        ports = [port for word in words for port in parse_ports(word)]
    except (WordError, ValueError) as bad:
        raise DockerfileError(str(bad), where=str(instruction.place)) from None
    exposed: dict[str, dict[str, object]] = {**(state.run.exposed_ports or {}), **{port: {} for port in ports}}
    return state.with_run(exposed_ports=exposed or None).with_history(f"EXPOSE [{' '.join(ports)}]")


def apply_text(state: State, instruction: Text) -> State:
    """USER and STOPSIGNAL."""
    text = instruction.text
    if instruction.name == "USER":
        return state.with_run(user=text).with_history(f"USER {text}")
    if not _is_signal(text):
        raise DockerfileError(
            f"invalid signal: {text}", where=str(instruction.place), hint="Write a name or a number: SIGTERM, 15."
        )
    return state.with_run(stop_signal=text).with_history(f"STOPSIGNAL {text}")


def _is_signal(text: str) -> bool:
    if text.isdigit():
        return int(text) > 0
    name = text.upper().removeprefix("SIG")
    return (
        f"SIG{name}" in signal.Signals.__members__
        or name.startswith(("RTMIN+", "RTMAX-"))
        or name in ("RTMIN", "RTMAX")
    )


def apply_onbuild(state: State, instruction: OnBuild) -> State:
    """ONBUILD."""
    return state.with_run(on_build=[*(state.run.on_build or ()), instruction.trigger])


def new_workdir(state: State, path: str) -> str:
    """The working directory that WORKDIR path gives; a slash at the end of an absolute one stays."""
    joined = posixpath.normpath(posixpath.join("/", state.run.working_dir or "/", path)).replace("//", "/")
    return f"{joined}/" if path.startswith("/") and path.endswith("/") and joined != "/" else joined
