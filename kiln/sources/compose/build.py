"""A service with `build` -> a drafted target, by the names of bake files."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from kiln.dockerfile.suggest import did_you_mean
from kiln.errors import UsageError
from kiln.sources.buildx.keys import Draft, Field
from kiln.sources.buildx.words import joined
from kiln.sources.compose.merge import Service, as_map, merged, pairs
from kiln.sources.yamlplaces import Map, Seq, Value

_TEXTS = {
    "context": "context", "dockerfile": "dockerfile", "dockerfile_inline": "dockerfile-inline", "target": "target",
    "network": "network",
}  # fmt: skip
_LISTS = {"tags": "tags", "platforms": "platforms", "cache_from": "cache-from", "cache_to": "cache-to"}
_MAPS = {"args": "args", "labels": "labels", "additional_contexts": "contexts"}
_FLAGS = {"no_cache": "no-cache", "pull": "pull"}
# These change how a build runs, not what it gives; isolation is of Windows.
_IDLE = ("shm_size", "ulimits", "privileged", "entitlements", "isolation")
_OTHER = ("secrets", "ssh", "extra_hosts", "sbom", "provenance")
_KNOWN = (*_TEXTS, *_LISTS, *_MAPS, *_FLAGS, *_IDLE, *_OTHER)
_X_LISTS = ("tags", "cache-from", "cache-to", "secret", "ssh", "platforms", "output", "no-cache-filter")
_X_KNOWN = (*_X_LISTS, "pull", "no-cache", "contexts")
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")


def target_name(service: str) -> str:
    """The name of a service's target: dots become `_`, as buildx has it."""
    return service.replace(".", "_")


def draft_of(service: Service, secrets: Map, environment: Mapping[str, str], project: str) -> Draft | None:
    """The draft of a service's image, None for one without `build`; raises `UsageError` with the line."""
    given = service.fields.get("build")
    if given is None:
        return None
    line = service.fields.lines["build"]
    build = as_map(merged(Map(line), given, "build"), service.file, line, "build")
    reader = _Reader(service, build, environment)
    reader.check()
    reader.read()
    reader.secrets(secrets)
    reader.extension()
    reader.name_it(project)
    return Draft(target_name(service.name), service.place, reader.fields, (), reader.places)


class _Reader(Struct):
    service: Service
    build: Map
    environment: Mapping[str, str]
    fields: dict[str, Field] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def where(self, key: str, inside: Map | None = None) -> str:
        """The line of a key."""
        lines = (self.build if inside is None else inside).lines
        return f"{self.service.file}:{lines.get(key) or self.service.line}"

    def check(self) -> None:
        """Raises `UsageError` for keys that `build` has not."""
        for key in self.build:
            if key not in _KNOWN and not key.startswith("x-"):
                raise UsageError(f"build has no {key!r}", where=self.where(key), hint=did_you_mean(key, _KNOWN))

    def read(self) -> None:
        """Reads everything but secrets and `x-bake`."""
        for key, value in self.build.items():
            if value is None:
                continue
            if key in _TEXTS:
                self._set(_TEXTS[key], _text(value, key, self.where(key)), key)
            elif key in _LISTS:
                self._set(_LISTS[key], _list(value, key, self.where(key)), key)
            elif key in _MAPS:
                self._set(_MAPS[key], self._map(key, value), key)
            elif key in _FLAGS:
                self._set(_FLAGS[key], _flag(value, key, self.where(key)), key)
        self._read_rest()

    def _read_rest(self) -> None:
        if "ssh" in self.build:
            self._set("ssh", self._ssh(self.build["ssh"]), "ssh")
        if self.build.get("extra_hosts") is not None:
            self._set("extra-hosts", self._hosts(self.build["extra_hosts"]), "extra_hosts")
        attests = [
            f"type={key}"
            for key in ("sbom", "provenance")
            if self.build.get(key) is not None and self.build[key] not in _FALSE
        ]
        if attests:
            self._set("attest", tuple(attests), "sbom" if "sbom" in self.build else "provenance")
        if "contexts" in self.fields:
            self.fields["contexts"] = _named(self.fields["contexts"])

    def _set(self, name: str, value: Field, key: str) -> None:
        self.fields[name] = value
        self.places[name] = self.where(key)

    def _map(self, key: str, value: Value) -> dict[str, str]:
        """A mapping or list of NAME=VALUE. An argument without value is that of the service or the environment."""
        given = pairs(value)
        if not isinstance(given, Map):
            raise UsageError(f"{key} is a mapping or a list", where=self.where(key))
        found: dict[str, str] = {}
        for name, item in given.items():
            word = _text(item, key, self.where(key)) if item is not None else None
            if word is None and key == "args":
                word = self._variable(name)
            elif word is None:
                word = ""
            if word is not None:
                found[name] = word
        return found

    def _variable(self, name: str) -> str | None:
        own = pairs(self.service.fields.get("environment"))
        value = own.get(name) if isinstance(own, Map) else None
        return value if isinstance(value, str) else self.environment.get(name)

    def _ssh(self, value: Value) -> tuple[str, ...]:
        if isinstance(value, Map):
            return tuple(f"{name}={path}" if isinstance(path, str) and path else name for name, path in value.items())
        return _list(value, "ssh", self.where("ssh"))

    def _hosts(self, value: Value) -> dict[str, str]:
        if isinstance(value, Map):
            words = [f"{name}={address}" for name, address in value.items() if isinstance(address, str)]
        else:
            words = list(_list(value, "extra_hosts", self.where("extra_hosts")))
        found = {}
        for word in words:
            name, _, address = word.partition("=") if "=" in word else word.partition(":")
            found[name] = address.strip("[]")
        return found

    def secrets(self, known: Map) -> None:
        """The secrets that the build names, as the top of the file describes them."""
        given = self.build.get("secrets")
        if given is None:
            return
        words = []
        for item in given if isinstance(given, Seq) else [given]:
            name = item.get("source") if isinstance(item, Map) else item
            if not isinstance(name, str):
                raise UsageError("a secret has no source", where=self.where("secrets"))
            words.append(self._secret(name, known))
        self._set("secret", tuple(words), "secrets")

    def _secret(self, name: str, known: Map) -> str:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"the secret {name} is not described in secrets:", where=self.where("secrets"), hint=hint)
        described = known[name]
        fields = {"id": name}
        if isinstance(described, Map):
            if described.get("external") in _TRUE:
                raise UsageError(f"the secret {name} is external; a build cannot read it", where=self.where("secrets"))
            for key, ours in (("file", "src"), ("environment", "env")):
                value = described.get(key)
                if isinstance(value, str):
                    fields[ours] = value
        return joined(fields)

    def extension(self) -> None:
        """What `x-bake` adds; raises `UsageError` for keys that it has not."""
        given = self.build.get("x-bake")
        if given is None:
            return
        more = as_map(given, self.service.file, self.build.lines["x-bake"], "x-bake")
        for key, value in more.items():
            where = self.where(key, more)
            if key not in _X_KNOWN:
                raise UsageError(f"x-bake has no {key!r}", where=where, hint=did_you_mean(key, _X_KNOWN))
            self.places[key] = where
            if key in _X_LISTS:
                words = tuple(value.split()) if isinstance(value, str) else _list(value, key, where)
                before = self.fields.get(key, ())
                self.fields[key] = (*before, *words) if isinstance(before, tuple) else words
            elif key == "contexts":
                before = self.fields.get(key, {})
                self.fields[key] = {**_named(self._map(key, value)), **(before if isinstance(before, dict) else {})}
            else:
                self.fields[key] = _flag(value, key, where)

    def name_it(self, project: str) -> None:
        """The service's image name, or PROJECT-SERVICE, where no tags are given."""
        if self.fields.get("tags"):
            return
        image = self.service.fields.get("image")
        name = image if isinstance(image, str) and image else f"{project}-{self.service.name}".lower()
        self.fields["tags"] = (name,)
        if image:
            self.places["tags"] = self.where("image", self.service.fields)


def _named(contexts: Field) -> dict[str, str]:
    """Contexts with `service:NAME` as the target's name."""
    found = {}
    for name, text in contexts.items() if isinstance(contexts, dict) else ():
        kind, colon, other = text.partition(":")
        found[name] = f"target:{target_name(other)}" if colon and kind in ("service", "target") else text
    return found


def _text(value: Value, key: str, where: str) -> str:
    if isinstance(value, str):
        return value
    raise UsageError(f"{key} is a text", where=where)


def _list(value: Value, key: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, Seq):
        raise UsageError(f"{key} is a list", where=where)
    return tuple(_text(item, key, where) for item in value)


def _flag(value: Value, key: str, where: str) -> bool:
    if value not in (*_TRUE, *_FALSE):
        raise UsageError(f"{key} is true or false", where=where)
    return value in _TRUE
