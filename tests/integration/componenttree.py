"""Component trees for tests: small ones by hand, and one of the size and the habits of a real one."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.services import Ended, Kiln

CONFIGURATION = """cluster:
  docker-registry:
    namespace: {namespace}
    domain: {domain}
    tag: {tag}
    username: {username}
    password: {password}
    secret-name: regsecret
"""
ALL = "FROM scratch\nCOPY . /\n"
INTO = 'pushd "$(dirname "$0")" > /dev/null\n'


@dataclass(frozen=True)
class Tree:
    """A tree in a folder; texts end up in files as they are."""

    root: Path

    def write(self, path: str, content: str | bytes = "", mode: int = 0o644) -> Path:
        """A file of the tree."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
        target.chmod(mode)
        return target

    def component(
        self,
        name: str,
        images: Mapping[str, str] | str | None = None,
        *,
        needs: Iterable[str] = (),
        pre: str = "",
        post: str = "",
        files: Mapping[str, str] | None = None,
    ) -> Tree:
        """`images` are Dockerfile names (without ending) and texts, or the text of the one that is named as the component."""
        (self.root / "src" / name).mkdir(parents=True, exist_ok=True)
        given = {name: images} if isinstance(images, str) else images or {}
        for image, text in given.items():
            self.write(f"src/{name}/build/{image}.dockerfile", text)
        if needs:
            self.write(f"src/{name}/build/component.dep", "".join(f"{need}\n" for need in needs))
        for hook, text in (("pre", pre), ("post", post)):
            if text:
                self.write(f"src/{name}/build/build-{hook}.sh", text)
        for path, content in (files or {}).items():
            self.write(f"src/{name}/{path}", content)
        return self

    def configure(
        self, domain: str, *, namespace: str = "team", tag: str = "1.10", login: tuple[str, str] = ("", "")
    ) -> Path:
        """A configuration folder beside the tree."""
        folder = self.root.parent / f"{self.root.name}-configuration"
        folder.mkdir(exist_ok=True)
        text = CONFIGURATION.format(namespace=namespace, domain=domain, tag=tag, username=login[0], password=login[1])
        (folder / "services-configuration.yaml").write_text(text)
        return folder


def listing(root: Path, without: str = "") -> dict[str, tuple[object, ...]]:
    """Everything of a tree by path: kind and mode, time of the last change in nanoseconds, content or target of a link."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name != without]
        for name in [".", *folders, *files]:
            path = Path(folder, name)
            info = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
            found[os.path.relpath(path, root)] = (info.st_mode, info.st_mtime_ns, info.st_uid, content)
    if without:
        del found["."]
    return found


def content(kiln: Kiln, name: str) -> dict[str, bytes]:
    """What the files of an image hold, by path; for images whose layers only add. A link holds its target."""
    found = {}
    for layer in kiln.layers(name):
        found |= {
            path.rstrip("/"): member.data or member.linkname.encode()
            for path, member in layer.items()
            if not member.isdir()
        }
    return found


def bake(kiln: Kiln, tree: Tree, *words: object, **more: Any) -> Ended:
    """`kiln bake` of a tree with plain progress."""
    return kiln.run("bake", "--progress", "plain", tree.root, *words, **more)


def fates(text: str) -> dict[str, str]:
    """Image -> what the report of a bake says became of it."""
    words = ("built", "skipped", "failed", "pulled", "pushed")
    rows = [line.split() for line in text.splitlines() if line.startswith("  ")]
    found = {row[1]: row[0] for row in rows if len(row) > 1 and row[0] in words}
    return found | {row[2]: "not reached" for row in rows if row[:2] == ["not", "reached"]}


PLAIN, WITH_BUILD, TWO, HOOKED = 15, 23, 9, 5
_SUFFIXES = ("", ".common", ".k8s", ".yarn")


def realistic(root: Path) -> Tree:
    """38 components (23 with images, 32 Dockerfiles, 5 with a first hook that copies from siblings and from the root), 964
    files, about 8 MB; needs by dependency files and by FROM."""
    tree, chance = Tree(root), random.Random(1)
    tree.write("version/PAI.VERSION", "v1.8.1\n")
    tree.write("LICENSE", "as you like\n")
    for number in range(PLAIN):
        tree.component(f"lib-{number:02}")
    for number in range(WITH_BUILD):
        _with_images(tree, number)
    _fill(tree, chance)
    commit(root)
    return tree


def _with_images(tree: Tree, number: int) -> None:
    name = f"part-{number:02}"
    suffix = _SUFFIXES[number % 4]
    above = f"part-{number - 3:02}" if number >= 3 else ""
    base = f"from {above}:latest\n" if above and number % 2 else "FROM base\n"
    images = {f"{name}{suffix}": f"{base}COPY . /srv/{name}\n"}
    if number < TWO:
        images[f"{name}-extra"] = f"FROM {name}\nLABEL extra={number}\nCOPY --from={name} /srv/{name}/file-000 /extra\n"
    needs = [f"lib-{number % PLAIN:02}", *([f"part-{number // 2:02}"] if number % 3 == 2 else [])]
    pre = _HOOK if number % 5 == 4 or number == WITH_BUILD - 1 else ""
    tree.component(name, images, needs=needs, pre=pre)


_HOOK = f"""#!/bin/bash
{INTO}
if [[ ! -d ../dependency ]]; then mkdir ../dependency; fi
cp -arfT ../../lib-13 ../dependency/tools
mkdir -p ../generated
git rev-parse HEAD > ../generated/commit
cp ../../../version/PAI.VERSION ../generated/
sha256sum ../../lib-14/file-000 > ../generated/sum
popd > /dev/null
"""


def _fill(tree: Tree, chance: random.Random) -> None:
    """Further files up to the size of the real tree."""
    folders = sorted((tree.root / "src").iterdir())
    have = sum(len(files) for _, _, files in os.walk(tree.root))
    for number in range(964 - have):
        folder = folders[number % len(folders)]
        deep = "" if number < 5 * len(folders) else f"deep/er-{number % 3}/"
        path = folder / deep / f"file-{number // len(folders):03}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.choice((300, 2000, 9000, 24500))))


def commit(root: Path) -> str:
    """Makes a git repository of a folder; returns the commit."""
    git = [
        "git",
        "-C",
        str(root),
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@example.org",
        "-c",
        "init.defaultBranch=main",
    ]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
