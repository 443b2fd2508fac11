"""Baking in tests: folders made from texts, `kiln bake` and `kiln plan` with what they said read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.services import DockerRegistry, Ended, Kiln, ask

INDEX, MANIFEST = "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"

# A base, an image on it, one beside them.
WEB = {
    "kiln.yml": """\
images:
  - {id: lib, context: lib}
  - {id: web, context: web, args: {VERSION: "1"}}
  - {id: tool, context: tool}
""",
    "lib/Dockerfile": "FROM base\nCOPY lib.txt /lib.txt\n",
    "lib/lib.txt": "lib\n",
    "web/Dockerfile": "FROM lib\nARG VERSION\nLABEL version=$VERSION\nCOPY src /src\n",
    "web/src/app.py": "app\n",
    "web/src/a.txt": "a\n",
    "web/src/b.txt": "b\n",
    "web/README": "not in the image\n",
    "tool/Dockerfile": "FROM base\nCOPY . /tool\n",
    "tool/.dockerignore": "*.log\nDockerfile\n.dockerignore\n",
    "tool/x.log": "1\n",
}


@dataclass(frozen=True)
class Baked:
    """A bake that ended: the last event of each target by name, and how many steps ran."""

    ended: Ended
    rows: Mapping[str, Mapping[str, Any]]
    ran: int
    warnings: tuple[str, ...] = ()

    @property
    def results(self) -> dict[str, str]:
        """What became of each target."""
        return {name: row["result"] for name, row in self.rows.items()}

    @property
    def digests(self) -> dict[str, str]:
        """Digests by target."""
        return {name: row.get("digest", "") for name, row in self.rows.items()}

    def reason(self, name: str) -> str:
        """Why, in words."""
        return str(self.rows[name].get("reason", ""))


def tree(place: Path, files: Mapping[str, str | bytes]) -> Path:
    """A folder with these files."""
    for path, content in files.items():
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


def bake(kiln: Kiln, path: object, *words: object, code: int | None = 0, seconds: float = 60) -> Baked:
    """`kiln bake`, its events read."""
    ended = kiln.run("bake", "--progress", "json", path, *words, code=code, seconds=seconds)
    found = [json.loads(line) for line in ended.err.splitlines() if line.startswith("{")]
    rows = {event["target"]: event for event in found if event["event"] == "targetfinished"}
    ran = sum(event.get("ran", 0) for event in found if event["event"] == "buildfinished")
    warnings = tuple(event["message"] for event in found if event["event"] == "warned")
    return Baked(ended, rows, ran, warnings)


def planned(kiln: Kiln, path: object, *words: object, code: int = 0) -> dict[str, dict[str, Any]]:
    """`kiln plan --format json`: the targets by name."""
    ended = kiln.run("plan", "--format", "json", path, *words, code=code)
    return {node["name"]: node for node in json.loads(ended.out)["targets"]} if ended.out else {}


def tags(registry: DockerRegistry, repository: str) -> set[str]:
    """The tags of a repository, as the registry lists them."""
    status, body = ask(registry.host, "GET", f"/v2/{repository}/tags/list")
    return set(json.loads(body)["tags"] or ()) if status == 200 else set()


def manifest(registry: DockerRegistry, repository: str, tag: str) -> dict[str, Any]:
    """The manifest or index under a tag."""
    status, body = ask(registry.host, "GET", f"/v2/{repository}/manifests/{tag}", {"Accept": f"{INDEX},{MANIFEST}"})
    assert status == 200, body
    found = json.loads(body)
    assert isinstance(found, dict)
    return found


def uploads(registry: DockerRegistry) -> int:
    """How many blobs and manifests were sent to a registry so far."""
    return sum(
        "http.request.method=PUT" in line and "response completed" in line for line in registry.log().splitlines()
    )
