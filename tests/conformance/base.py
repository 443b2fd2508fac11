"""The base images of the suite: a small root file system around busybox, and what is built on it.

`base` is `FROM scratch` plus an archive; `base2` carries a full config; `base3` carries ONBUILD triggers.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .tree import archive

_APPLETS = """
    ash awk base64 basename cat chgrp chmod chown cmp cp cut date dd df diff dirname du echo egrep env expr false find
    getfattr grep head hostname id install link ln ls md5sum mkdir mkfifo mknod mktemp mount mv nl od printf pwd
    readlink realpath rev rm rmdir sed seq sh sha256sum sleep sort stat sync tac tail tar tee test touch tr true
    truncate umount uname uniq wc which whoami xargs [
"""
_FOLDERS = "bin dev etc home links hl proc run srv sys usr usr/bin usr/lib usr/sbin var var/lib odd"

PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/sh
bin:x:2:2:bin:/bin:/bin/sh
app:x:1234:2345:App:/home/app:/bin/sh
svc:x:77:88::/srv:/bin/false
1500:x:1600:1700:a name of digits:/:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
"""
GROUP = """root:x:0:
daemon:x:1:
bin:x:2:
staff:x:50:app
wheel:x:10:root,app
svc:x:88:
app:x:2345:
lonely:x:999:
nogroup:x:65534:
"""

Member = Mapping[str, Any]

BASE = """FROM scratch
ADD base.tar /
ENV BASE=1
CMD ["sh"]
"""
BASE2 = """FROM base
ENV A=base2 LIST="x y" PATH=/base2/bin:/usr/bin:/bin
LABEL from=base2 keep="a b"
USER app
WORKDIR /home/app/work
ENTRYPOINT ["/bin/echo", "entry"]
CMD ["one", "two"]
SHELL ["/bin/sh", "-ec"]
VOLUME /vol
EXPOSE 80 53/udp
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=2 CMD true
"""
BASE3 = """FROM base
ONBUILD ENV FROM_TRIGGER=yes
ONBUILD COPY onb.txt /onb/
ONBUILD RUN echo "$FROM_TRIGGER" > /onb/ran
"""
DOCKERFILES = {"base": BASE, "base2": BASE2, "base3": BASE3}


def write_context(folder: Path, busybox: bytes) -> None:
    """Write base.tar and the Dockerfiles of the base images (`base.Dockerfile` and so on) into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.tar").write_bytes(base_tar(busybox))
    for name, text in DOCKERFILES.items():
        (folder / f"{name}.Dockerfile").write_text(text)


def base_tar(busybox: bytes) -> bytes:
    """The root file system of `base` as an archive that is the same every time."""
    return archive(
        [*_folders(), *_files(), {"name": "bin/busybox", "mode": "0755", "base64": _b64(busybox)}, *_links()], "plain"
    )


def busybox_of_debian(cache: Path) -> bytes:
    """Debian's static busybox: the installed one, or one that is downloaded once into `cache`. Raises CalledProcessError
    when apt cannot get it."""
    installed = _installed()
    if installed is not None:
        return installed.read_bytes()
    kept = cache / "busybox"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            _download(Path(scratch), kept)
    return kept.read_bytes()


def _installed() -> Path | None:
    done = subprocess.run(["dpkg-query", "-L", "busybox-static"], capture_output=True, text=True, check=False)
    paths = [Path(line) for line in done.stdout.splitlines() if line.endswith("bin/busybox")]
    return paths[0] if paths and paths[0].is_file() else None


def digest(data: bytes) -> str:
    """The sha256 of the bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _download(scratch: Path, kept: Path) -> None:
    scratch.chmod(0o777)  # apt drops to its own user for downloads
    subprocess.run(["apt-get", "download", "-q", "busybox-static"], cwd=scratch, check=True, capture_output=True)
    package = next(scratch.glob("busybox-static_*.deb"))
    subprocess.run(["dpkg-deb", "-x", str(package), str(scratch / "x")], check=True)
    found = next(p for p in (scratch / "x").rglob("busybox") if p.is_file() and p.parent.name == "bin")
    shutil.copyfile(found, kept)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _folder(name: str, mode: str = "0755", uid: int = 0, gid: int = 0) -> Member:
    return {"type": "dir", "name": name, "mode": mode, "uid": uid, "gid": gid}


def _folders() -> list[Member]:
    return [
        *(_folder(name) for name in _FOLDERS.split()),
        _folder("home/app", uid=1234, gid=2345),
        _folder("opt", "0750", 7, 8),
        _folder("root", "0700"),
        _folder("setgid", "2775", 0, 50),
        _folder("srv/data", "0775", 1, 50),
        _folder("tmp", "1777"),
    ]


def _files() -> list[Member]:
    return [
        {"name": "etc/passwd", "text": PASSWD},
        {"name": "etc/group", "text": GROUP},
        {"name": "etc/motd", "text": "welcome\n"},
        {"name": "home/app/.profile", "text": "# profile\n", "mode": "0600", "uid": 1234, "gid": 2345},
        {"name": "hl/a", "text": "linked\n"},
        {"name": "hl/b", "type": "hardlink", "link": "hl/a"},
        {"name": "odd/setuid", "text": "#!/bin/sh\n", "mode": "4755"},
        {"name": "odd/secret", "text": "secret\n", "mode": "0600", "uid": 7, "gid": 8},
        {"name": "odd/attr", "text": "attr\n", "xattrs": {"user.origin": "base"}},
        {"name": "srv/data/keep", "text": "keep\n", "uid": 1, "gid": 50},
    ]


def _links() -> list[Member]:
    links = {f"bin/{applet}": "busybox" for applet in _APPLETS.split()}
    links |= {
        "data": "/srv/data",
        "links/abs": "/etc/motd",
        "links/dangling": "/nowhere/x",
        "links/dir": "../srv/data",
        "links/file": "../etc/motd",
        "links/loop": "loop",
        "links/up": "../../../../srv/data",
        "usr/bin/env": "../../bin/busybox",
        "var/run": "../run",
    }
    return [{"type": "symlink", "name": name, "link": target, "mode": "0777"} for name, target in sorted(links.items())]
