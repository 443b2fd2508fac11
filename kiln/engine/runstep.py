"""RUN as a step: its environment, its mounts, its key, and the request to the worker."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import posixpath
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from kiln import events
from kiln.dockerfile.flags import Mount
from kiln.dockerfile.instructions import Run
from kiln.engine import wire
from kiln.engine.build import Build, key_of, safe
from kiln.engine.files import Files
from kiln.engine.select import Selection, digest_of, whole
from kiln.engine.state import State, with_shell
from kiln.engine.step import Result, Step, keep_form, perform
from kiln.engine.users import identity_of
from kiln.errors import DockerfileError, RunError, SandboxError
from kiln.oci.image import Descriptor
from kiln.oci.platform import local
from kiln.store.entry import FILE
from kiln.store.tree import resolve
from kiln.store.unpack import Unpacker

PROXY_ARGS = frozenset({"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"})
_TAIL = 20
_HOSTS = "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"


class Origin(Struct, frozen=True):
    """Where a mount's `from` leads: a state's layers, or other files (the build context)."""

    stack: wire.Stack | None = None
    files: Files | None = None


FindOrigin = Callable[[str], Origin]


def command_line(state: State, run: Run) -> tuple[list[str], str]:
    """(argv, content of a script to mount at /dev/pipes/NAME or empty) of a RUN with its heredocs."""
    args = run.args
    script = ""
    if run.heredocs and run.shell:
        first = run.heredocs[0]
        if args and args[0].strip().startswith("<<") and " " not in args[0].strip():
            if first.text.startswith("#!"):
                return [*(state.run.shell or ["/bin/sh", "-c"]), f"/dev/pipes/{first.name}"], first.text
            args = (first.text,)
        else:
            args = (args[0] + "".join(f"\n{item.content}{item.name}" for item in run.heredocs),)
    return (with_shell(state, args) if run.shell else list(args)), script


class RunStep:
    """One RUN on a state."""

    def __init__(self, build: Build, state: State, run: Run, mounts: tuple[Mount, ...], origin: FindOrigin) -> None:
        self.build, self.state, self.run_instruction, self.mounts = build, state, run, mounts
        self.origin = origin
        self.where = str(run.place)
        self.argv, self.script = command_line(state, run)
        if not self.argv:
            raise DockerfileError("RUN requires a command", where=self.where)
        self.network = {"": "host", "default": "host"}.get(run.network or build.network, run.network or build.network)

    def run(self, name: Callable[[dict[str, str]], Step]) -> Result:
        """The layer of what the command changed, from the cache or made."""
        env = sorted(f"{key}={value}" for key, value in self.state.env)
        mounts = [self._mount_facts(mount) for mount in self.mounts]
        state = self.state
        facts = {
            "parent": state.chain,
            "instruction": key_of([safe(word) for word in self.argv], self.script),
            "environment": key_of([safe(word) for word in env], state.run.working_dir, state.run.user, self.network),
            "mounts": key_of(mounts),
        }
        key = key_of("run", facts, str(self.build.platform), self.build.hosts)
        step = name(facts)
        result = perform(self.build, step, key, lambda: self._made(step.id))
        if self.build.packing is not None:
            self.build.packing.take(result.layer, lambda layer: keep_form(self.build, key, layer))
        return result

    def _made(self, step: str) -> Result:
        result = self._execute(step)
        if self.build.early is not None and not result.layer.plain:
            self.build.early.take(result.layer.descriptor)
        return result

    def _mount_facts(self, mount: Mount) -> list[object]:
        facts: list[object] = [mount.type, mount.target, mount.read_only, mount.env]
        if mount.type == "bind":
            facts += [mount.source, self._content_key(mount)]
        elif mount.type == "cache":
            facts += [mount.id, mount.sharing, mount.mode, mount.uid, mount.gid, mount.source_stage, mount.source]
        elif mount.type == "tmpfs":
            facts.append(mount.size)
        else:
            facts += [mount.id or mount.source, mount.required, mount.mode, mount.uid, mount.gid]
        return facts

    def _content_key(self, mount: Mount) -> str:
        origin = self.origin(mount.source_stage)
        if origin.stack is not None:
            files: Files = self.build.files(origin.stack)
        else:
            assert origin.files is not None
            files = origin.files
        return digest_of([self._whole(files, mount)])

    def _whole(self, files: Files, mount: Mount) -> Selection:
        """Everything at a mount's source."""
        path = resolve(files.get, mount.source)
        entry = files.get(path)
        if entry is None:
            raise DockerfileError(f'"/{mount.source.strip("/")}": not found, to be mounted', where=self.where)
        return whole(files, path, entry)

    def _execute(self, step: str) -> Result:
        self._check_machine()
        self.build.helper.prepare()
        self.build.doors.layers(self._needed())
        self._unpack()
        started = int(time.time())
        log = _Log(self.build, step)
        request = self._request()
        try:
            reply = self.build.helper.run(request, log.write, self.build.cancel)
        except SandboxError as bad:
            raise bad.at(self.where) from None
        finally:
            log.close()
        if reply.layer is None:
            self._offer_shell(request, step)
            raise self._failure(reply.code, log)
        return Result(reply.layer, started)

    def _unpack(self) -> None:
        """A base that was never read is read and unpacked in one pass, before anybody looks into it."""
        stack, store = self.state.stack, self.build.store
        if not all(map(store.layers.has_toc, stack.diff_ids)):
            request = wire.UnpackRequest(str(store.root), str(store.scratch), stack)
            self.build.helper.run(request, lambda data, stream: None, self.build.cancel)

    def _needed(self) -> tuple[Descriptor, ...]:
        """The layers that the worker will read: those of the step and of what it mounts."""
        origins = [self.origin(mount.source_stage) for mount in self.mounts if mount.source_stage]
        stacks = [self.state.stack, *(origin.stack for origin in origins if origin.stack is not None)]
        return tuple(layer for stack in stacks for layer in stack.descriptors)

    def _check_machine(self) -> None:
        if not self.build.doors.runtime():
            raise SandboxError(
                "no OCI runtime (crun or runc) is installed, so RUN cannot run",
                where=self.where,
                hint="Install the package crun or runc, or name one with KILN_RUNTIME.",
            )
        platform = self.build.platform
        if platform.architecture not in (
            local().architecture,
            "386" if local().architecture == "amd64" else "",
        ) and not _emulated(platform.architecture):
            raise SandboxError(
                f"RUN cannot run {platform} programs on this {local()} machine: there is no emulation for them",
                where=self.where,
                hint="Install qemu-user-static and binfmt-support, or build on a machine of that kind.",
            )

    def _offer_shell(self, request: wire.RunRequest, step: str) -> None:
        if self.build.debug:
            self.build.say(events.ShellOpened(time=events.now(), step=step))
            self.build.helper.shell(wire.ShellRequest(request))

    def _failure(self, code: int, log: _Log) -> RunError:
        text = " ".join(self.argv)
        bad = RunError(
            f'the command "{text}" ended with exit code {code}',
            code=code, log_tail=tuple(log.tail()), log_path=str(log.path),
            hint="The whole output is in the log; --debug-on-error opens a shell where the step stopped.",
        )  # fmt: skip
        bad.where = self.where
        return bad

    def _request(self) -> wire.RunRequest:
        state = self.state
        try:
            who = identity_of(state.run.user, lambda path: self.build.read_small(state, path))
        except DockerfileError as bad:
            raise bad.at(self.where) from None
        scratch = self.build.store.scratch
        wishes = [wish for mount in self.mounts for wish in self._wishes(mount)]
        if self.script:
            wishes.append(self._script_wish())
        return wire.RunRequest(
            id=f"kiln-{os.urandom(8).hex()}", store=str(self.build.store.root), scratch=str(scratch), stack=state.stack,
            args=tuple(self.argv), env=tuple(self._environment(who.home)), cwd=state.run.working_dir or "/", uid=who.uid,
            gid=who.gid, groups=who.groups, network="none" if self.network == "none" else "host",
            runtime=self.build.doors.runtime(), mounts=tuple(wishes),
            compression=self.build.compression, resolv_conf=self._resolv_conf(), hosts=self._hosts(), debug=self.build.debug,
        )  # fmt: skip

    def _environment(self, home: str) -> list[str]:
        env = self.state.variables
        # Where there is no row for the user, runc says / and crun nothing.
        env["HOME"] = env.get("HOME") or home
        for name, value in self.build.args.items():
            if name.lower() in PROXY_ARGS:
                for spelled in (name.lower(), name.upper()):
                    env.setdefault(spelled, value)
        return [f"{name}={value}" for name, value in env.items()]

    def _script_wish(self) -> wire.MountWish:
        name = self.run_instruction.heredocs[0].name
        data = self.script.encode("utf-8", "surrogateescape")
        return wire.MountWish("secret", f"/dev/pipes/{name}", data=data, mode=0o755)

    def _resolv_conf(self) -> str:
        path = self.build.store.scratch / "resolv.conf"
        if not path.exists():
            source = Path("/etc/resolv.conf")
            lines = source.read_text().splitlines() if source.exists() else []
            kept = [
                line
                for line in lines
                if line.split(None, 1)[:1] in (["nameserver"], ["search"], ["options"], ["domain"])
            ]
            path.write_text("\n".join(kept) + "\n")
            path.chmod(0o644)
        return str(path)

    def _hosts(self) -> str:
        path = self.build.store.scratch / "hosts"
        if not path.exists():
            extra = "".join(
                f"{address}\t{name}\n" for name, _, address in (host.partition(":") for host in self.build.hosts)
            )
            path.write_text(_HOSTS + extra)
            path.chmod(0o644)
        return str(path)

    def _wishes(self, mount: Mount) -> list[wire.MountWish]:
        if mount.type == "secret":
            return self._secret(mount)
        maker = {"bind": self._bind, "cache": self._cache, "tmpfs": self._tmpfs, "ssh": self._agent}
        wish = maker[mount.type](mount)
        return [] if wish is None else [wish]

    def _target(self, mount: Mount) -> str:
        target = posixpath.normpath(posixpath.join("/", self.state.run.working_dir or "/", mount.target))
        if target == "/":
            raise DockerfileError(f'invalid mount target "{mount.target or target}"', where=self.where)
        return target

    def _bind(self, mount: Mount) -> wire.MountWish:
        origin = self.origin(mount.source_stage)
        if origin.stack is not None:
            files = self.build.files(origin.stack)
            source = resolve(files.get, mount.source)
            return wire.MountWish(
                "bind", self._target(mount), source=source, stack=origin.stack, writable=not mount.read_only
            )
        assert origin.files is not None
        folder = self._materialise(self._whole(origin.files, mount), mount.read_only)
        return wire.MountWish("bind", self._target(mount), folder=str(folder), writable=not mount.read_only)

    def _materialise(self, selection: Selection, shared: bool) -> Path:
        """A copy of context files, owned by root as in an image, in scratch space; a read-only one serves all steps."""
        name = digest_of([selection])[:24] if shared else os.urandom(12).hex()
        folder = self.build.store.scratch / f"context-{name}"
        place = folder / "content"
        if not folder.exists():
            work = self.build.store.scratch / f"context-work-{os.urandom(8).hex()}"
            work.mkdir()
            with Unpacker(work, owners=False) as unpacker:
                for item in selection.items:
                    content = selection.files.chunks(item.path, item.entry) if item.entry.kind == FILE else iter(())
                    unpacker.add(f"content/{item.relative}".rstrip("/"), item.entry, content)
                unpacker.finish()
            try:
                work.rename(folder)
            except OSError:
                # Another step was faster with the same content.
                if not folder.exists():
                    raise
        return place

    def _cache(self, mount: Mount) -> wire.MountWish:
        target = self._target(mount)
        identity = mount.id or target
        name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        folder = self.build.store.root / "mounts" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "id").write_text(identity, errors="surrogateescape")
        stack, source = None, ""
        if mount.source_stage:
            stack = self.origin(mount.source_stage).stack
            source = resolve(self.build.files(stack).get, mount.source) if stack is not None else ""
        return wire.MountWish(
            "cache", target, source=source, folder=str(folder / "data"), stack=stack, writable=not mount.read_only,
            mode=-1 if mount.mode is None else mount.mode, uid=-1 if mount.uid is None else mount.uid,
            gid=-1 if mount.gid is None else mount.gid, sharing=mount.sharing or "shared",
        )  # fmt: skip

    def _tmpfs(self, mount: Mount) -> wire.MountWish:
        return wire.MountWish("tmpfs", self._target(mount), size=mount.size, writable=True)

    def _secret(self, mount: Mount) -> list[wire.MountWish]:
        identity = mount.id or mount.source or posixpath.basename(mount.target)
        secret = self.build.secrets.get(identity)
        if secret is None:
            if mount.required:
                raise DockerfileError(
                    f"secret {identity}: not found",
                    where=self.where,
                    hint=f"Give it with --secret id={identity},src=FILE.",
                )
            return [wire.MountWish("env", mount.env)] if mount.env else []
        data = self.build.doors.secret(secret)
        if mount.env:
            wishes = [wire.MountWish("env", mount.env, data=data)]
            return wishes + ([self._secret_file(mount, identity, data)] if mount.target else [])
        return [self._secret_file(mount, identity, data)]

    def _secret_file(self, mount: Mount, identity: str, data: bytes) -> wire.MountWish:
        return wire.MountWish(
            "secret", self._target_or(mount, f"/run/secrets/{posixpath.basename(identity)}"), data=data,
            mode=0o400 if mount.mode is None else mount.mode, uid=mount.uid or 0, gid=mount.gid or 0,
        )  # fmt: skip

    def _agent(self, mount: Mount) -> wire.MountWish | None:
        identity = mount.id or "default"
        if identity not in self.build.ssh:
            if mount.required:
                raise DockerfileError(
                    f"unset ssh forward key {identity}", where=self.where, hint=f"Give it with --ssh {identity}."
                )
            return None
        index = sorted(self.build.ssh).index(identity)
        return wire.MountWish(
            "ssh", self._target_or(mount, f"/run/buildkit/ssh_agent.{index}"), source=self.build.doors.agent(identity),
            writable=True, mode=0o600 if mount.mode is None else mount.mode, uid=mount.uid or 0, gid=mount.gid or 0,
        )  # fmt: skip

    def _target_or(self, mount: Mount, default: str) -> str:
        return self._target(mount) if mount.target else default


def agent_environment(mounts: tuple[Mount, ...], build: Build) -> dict[str, str]:
    """SSH_AUTH_SOCK for the first ssh mount, as BuildKit sets it."""
    for mount in mounts:
        if mount.type == "ssh":
            names = sorted(build.ssh)
            index = names.index(mount.id or "default") if (mount.id or "default") in names else 0
            return {"SSH_AUTH_SOCK": mount.target or f"/run/buildkit/ssh_agent.{index}"}
    return {}


def _emulated(architecture: str) -> bool:
    """Whether the kernel hands programs of this architecture to an emulator."""
    names = {"arm64": "aarch64", "386": "i386", "amd64": "x86_64"}
    name = names.get(architecture, architecture)
    try:
        return (Path("/proc/sys/fs/binfmt_misc") / f"qemu-{name}").read_text().startswith("enabled")
    except OSError:
        return False


class _Log:
    """The output of a command: into a file, line by line into events, and its last lines for an error."""

    def __init__(self, build: Build, step: str) -> None:
        self._build, self._step = build, step
        folder = build.store.root / "logs"
        folder.mkdir(exist_ok=True)
        self.path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(4).hex()}.log"
        self._file = self.path.open("wb", buffering=0)
        self._last: list[str] = []
        self._rest = {1: "", 2: ""}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {1: decoder("replace"), 2: decoder("replace")}

    def write(self, data: bytes, stream: int) -> None:
        """Takes what came out of a stream; a disk that is full costs the log, not the output."""
        with contextlib.suppress(OSError):
            self._file.write(data)
        text = self._rest[stream] + self._decoders[stream].decode(data)
        *lines, rest = text.split("\n")
        if len(rest) > 1 << 16:
            lines, rest = [*lines, rest], ""
        self._rest[stream] = rest
        self._lines(lines, stream)

    def _lines(self, lines: list[str], stream: int) -> None:
        if lines:
            self._last = (self._last + lines)[-_TAIL:]
            self._build.say(
                events.StepOutput(time=events.now(), step=self._step, text="\n".join(lines) + "\n", stream=stream)
            )

    def close(self) -> None:
        """Hands out what is left without a line's end."""
        for stream, rest in self._rest.items():
            if rest:
                self._lines([rest], stream)
        self._file.close()

    def tail(self) -> list[str]:
        """The last lines."""
        return self._last
