"""Images with a type: engines, made from a database's repository, and managers, made from an engine."""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from kiln.errors import SourceError
from kiln.oci.reference import parse as parse_reference
from kiln.plan.target import Context
from kiln.settings import Settings
from kiln.sources.catalog.ground import Checkout, Draft, Ground
from kiln.sources.catalog.image import shared
from kiln.sources.catalog.item import Item
from kiln.sources.catalog.keys import ENGINE
from kiln.sources.fetch import download
from kiln.sources.git import shown
from kiln.sources.wish import Wish

_VERSION = re.compile(r"^PACKAGE_VERSION='?([^'\n]+)'?$", re.MULTILINE)
_TEXTS = tuple(key.name for key in ENGINE.values() if key.kind == "text")
_RPM_FIELD = re.compile(r"\b(CodeBranch|PFSDVersion):[ \t]*(\S+)", re.IGNORECASE)


def engine(item: Item, ground: Ground, name: str) -> Draft:
    """An engine: its repository and the template appear in the context, the user's folder is not written to. Raises
    `UsageError` and `SourceError`."""
    draft = _typed(item, ground, name)
    wish = draft.wish
    for key in _TEXTS:
        item.text(key)
    if not wish.enabled:
        return draft
    rpm = _rpm_facts(item, ground)
    branch = rpm.get("codebranch") or item.text("engine_branch")
    found = ground.checkout(item, "engine_repo", item.text("engine_repo"), branch)
    folder = f"polardb_pg-{branch or found.commit[:8]}"
    args = {
        **ground.facts, "PolarSource": shown(found.remote), "PolarBranch": branch, "PolarVersion": found.commit,
        "POLAR_SOURCE_DIR": folder, "PFSRPM": ground.pfsd_rpm, "PolarDBRPM": item.text("polardb_rpm"),
    }  # fmt: skip
    if rpm.get("pfsdversion"):
        args["PFSDVersion"] = rpm["pfsdversion"]
    wish = replace(wish, args={**args, **wish.args}, mounts=(*_mounts(item, ground, found, folder), *wish.mounts))
    return replace(draft, wish=_tagged(item, ground, wish, _engine_tag(item, ground, found) if wish.auto_tag else ""))


def manager(item: Item, ground: Ground, name: str) -> Draft:
    """A manager: the full name of its engine reaches the Dockerfile as ENGINE_IMAGE_FULL_NAME. Raises `UsageError`."""
    draft = _typed(item, ground, name)
    base = item.text("engine_image_id")
    wish = replace(
        draft.wish, args={**ground.facts, **draft.wish.args}, image_args={"ENGINE_IMAGE_FULL_NAME": base},
    )  # fmt: skip
    wanted = ((base, item.place("engine_image_id"), True), *draft.wanted)
    commit = ground.facts["CodeVersion"][:8]
    tag = f"{ground.stamp}.{commit}" if commit else ground.stamp
    return Draft(_tagged(item, ground, wish, tag) if wish.enabled else wish, wanted)


def _typed(item: Item, ground: Ground, name: str) -> Draft:
    draft = shared(item, ground, name, push=True)
    text = item.text("build_image_name")
    reference = ground.reference(item, "build_image_name", text)
    wish = replace(
        draft.wish, file=ground.place(item.text("build_image_dockerfile")), tags=(reference,),
        auto_tag=not ground.tag and not parse_reference(text).tag,
    )  # fmt: skip
    return replace(draft, wish=wish)


def _tagged(item: Item, ground: Ground, wish: Wish, tag: str) -> Wish:
    """With the automatic tag, if the name has none of its own."""
    if not wish.auto_tag:
        return wish
    name = item.text("build_image_name")
    return replace(wish, tags=(ground.reference(item, "build_image_name", f"{name}:{tag}"),))


def _engine_tag(item: Item, ground: Ground, found: Checkout) -> str:
    """version.date.commit.time; the version is that of the repository's configure script."""
    path = ground.inside(item, "engine_repo", found, "configure")
    version = _VERSION.search(path.read_text("utf-8", "replace")) if path.is_file() else None
    if version is None:
        raise SourceError(
            f"the configure script of {found.name} has no PACKAGE_VERSION", where=item.place("engine_repo"),
            hint="It is needed for an automatic tag; write a tag in build_image_name.",
        )  # fmt: skip
    date = item.text("engine_release_date") or ground.now.strftime("%Y%m%d")
    return f"{version[1].strip()}.{date}.{found.commit[:8]}.{ground.stamp}"


def _mounts(item: Item, ground: Ground, found: Checkout, folder: str) -> list[tuple[str, Context]]:
    mounts = [(folder, Context("folder", found.folder, name=found.name))]
    if template := item.text("engine_config_template"):
        path = ground.inside(item, "engine_config_template", found, template)
        if not path.is_file():
            raise SourceError(
                f"{template} is no file of the repository {found.name}", where=item.place("engine_config_template")
            )
        mounts.append((f"rootfs/{posixpath.basename(template)}", Context("folder", path, name=found.name)))
    return mounts


def _rpm_facts(item: Item, ground: Ground) -> Mapping[str, str]:
    """`codebranch` and `pfsdversion` as the description of the image's RPM gives them, if it names one."""
    url = item.text("polardb_rpm")
    if not url:
        return {}
    try:
        if url not in ground.rpms:
            ground.rpms[url] = _described(url, ground)
    except SourceError as bad:
        raise SourceError(str(bad), where=item.place("polardb_rpm"), hint=bad.hint) from bad
    found = {name.lower(): value for name, value in _RPM_FIELD.findall(ground.rpms[url])}
    if not found.get("codebranch") and not item.has("engine_branch"):
        raise SourceError(
            f"the description of {shown(url)} has no CodeBranch", where=item.place("polardb_rpm"),
            hint="Write engine_branch.",
        )  # fmt: skip
    return found


def _described(url: str, ground: Ground) -> str:
    settings = ground.mirrors.settings
    program = shutil.which("rpm", path=settings.path or None)
    if program is None:
        raise SourceError("rpm is not installed, which reads polardb_rpm", hint="Install the package rpm.")
    with tempfile.TemporaryDirectory(prefix="kiln-rpm-") as folder:
        path, _ = download(url, Path(folder), settings, ground.mirrors.cancel)
        done = subprocess.run(
            [program, "-pqi", "--", str(path)], env=_environment(settings), stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace", check=False,
        )  # fmt: skip
    if done.returncode:
        raise SourceError(f"rpm cannot read {shown(url)}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _environment(settings: Settings) -> dict[str, str]:
    return {"PATH": settings.path or "/usr/bin:/bin", "HOME": settings.environment.get("HOME", "/"), "LC_ALL": "C"}
