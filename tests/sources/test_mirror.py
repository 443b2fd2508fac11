"""Mirrors: fetched once, whole or not at all, byte for byte, and nothing of this machine by way of a submodule."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

import pytest

from kiln.errors import CancelledBuild, SourceError
from kiln.sources.git import is_git, is_local, shown, without_password
from kiln.sources.mirror import Mirrors, _relative
from tests.sources.gitpeers import commit, digest_of, git, mirrors, repository, serving


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path / "served") as running:
        yield running


@pytest.fixture
def app(tmp_path):
    return repository(tmp_path / "served" / "app", {"a.txt": "one\n", "d/b": "two\n"})


def test_a_branch_a_tag_a_commit_and_head(tmp_path, app, server):
    first = git(app, "rev-parse", "HEAD")
    git(app, "tag", "-a", "v1", "-m", "x")
    git(app, "checkout", "-q", "-b", "topic/x")
    second = commit(app, {"a.txt": "changed\n"})
    git(app, "checkout", "-q", "main")
    found = mirrors(tmp_path)
    url = f"{server.url}/app"
    assert [found.commit(url, ref) for ref in ("main", "v1", "HEAD", "", "refs/heads/main", first, first[:9])] == [
        first
    ] * 7
    assert found.commit(url, "topic/x") == second
    assert digest_of(found.tree(url, second)) == {"a.txt": b"changed\n", "d/b": b"two\n"}
    assert digest_of(found.tree(url, first)) == {"a.txt": b"one\n", "d/b": b"two\n"}


def test_asked_fetched_and_checked_out_once_by_many_threads(tmp_path, app, server, monkeypatch):
    found = mirrors(tmp_path)
    url, trees = f"{server.url}/app", []

    def work():
        tree = found.tree(url, found.commit(url, "main"))
        trees.append(tree)

    made = []
    monkeypatch.setattr(found, "_fill", lambda *words: (made.append(words), Mirrors._fill(found, *words)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(trees)) == 1 and len(trees) == 8 and len(made) == 1
    assert server.asked.count("fetch") == 1
    assert server.asked.count("refs") <= 2  # ls-remote, and what fetch asks for itself


def test_a_whole_id_that_is_here_needs_no_server(tmp_path, app):
    with serving(tmp_path / "served") as server:
        url = f"{server.url}/app"
        found = mirrors(tmp_path)
        tree = found.tree(url, found.commit(url, "main"))
    again = mirrors(tmp_path)
    head = git(app, "rev-parse", "HEAD")
    assert again.commit(url, head) == head
    assert again.tree(url, head) == tree


def test_a_moved_branch_is_seen_by_the_next_run_only(tmp_path, app, server):
    url = f"{server.url}/app"
    found = mirrors(tmp_path)
    before = found.commit(url, "main")
    after = commit(app, {"a.txt": "moved\n"})
    assert found.commit(url, "main") == before
    assert mirrors(tmp_path).commit(url, "main") == after
    assert (found.tree(url, before) / "a.txt").read_text() == "one\n"


@pytest.mark.parametrize("old", [True, False])
def test_shallow_where_the_server_lets_us(tmp_path, app, server, old):
    server.old = old
    first = git(app, "rev-parse", "HEAD")
    commit(app, {"a.txt": "moved\n"})
    url = f"{server.url}/app"
    found = mirrors(tmp_path)
    assert (found.tree(url, found.commit(url, "main")) / "a.txt").read_text() == "moved\n"
    (mirror,) = (tmp_path / "git" / "mirrors").iterdir()
    assert (mirror / "shallow").exists()
    # An old server does not hand out what no branch points to: the whole history is fetched then.
    assert (found.tree(url, first) / "a.txt").read_text() == "one\n"
    assert (mirror / "shallow").exists() is not old


def test_a_server_of_files_alone(tmp_path, app, server):
    first = git(app, "rev-parse", "HEAD")
    bare = tmp_path / "served" / "dumb.git"
    git(tmp_path, "clone", "-q", "--bare", app, bare)
    git(bare, "update-server-info")
    server.dumb = True
    found = mirrors(tmp_path)
    url = f"{server.url}/dumb.git"
    assert digest_of(found.tree(url, found.commit(url, "main"))) == {"a.txt": b"one\n", "d/b": b"two\n"}
    assert found.commit(url, "HEAD") == first


def test_submodules_of_submodules(tmp_path, server):
    served = tmp_path / "served"
    repository(served / "inner", {"deep": "deep\n"})
    middle = repository(served / "middle", {"m": "m\n"})
    git(middle, "submodule", "add", "-q", f"{server.url}/inner", "parts/inner")
    commit(middle, {})
    outer = repository(served / "outer", {"o": "o\n"})
    git(outer, "submodule", "add", "-q", f"{server.url}/middle", "sub")
    git(outer, "config", "-f", ".gitmodules", "submodule.sub.url", "../middle")
    git(outer, "submodule", "add", "-q", f"{server.url}/inner", "off")
    git(outer, "config", "-f", ".gitmodules", "submodule.off.update", "none")
    commit(outer, {})
    found = mirrors(tmp_path)
    url = f"{server.url}/outer"
    server.asked.clear()
    tree = found.tree(url, found.commit(url, "main"))
    assert {name for name in digest_of(tree) if name != ".gitmodules"} == {
        "o",
        "sub/m",
        "sub/parts/inner/deep",
        "sub/.gitmodules",
    }
    assert not list(tree.rglob(".git"))
    assert server.asked.count("fetch") == 3


@pytest.mark.parametrize("url", ["{private}", "file://{private}", "../../private", "ext::sh -c date", "-x"])
def test_a_submodule_of_this_machine_is_refused(tmp_path, server, url):
    private = repository(tmp_path / "private", {"secret": "canary\n"})
    public = repository(tmp_path / "served" / "public", {"p": "p\n"})
    git(public, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(private), "sub")
    git(public, "config", "-f", ".gitmodules", "submodule.sub.url", url.format(private=private))
    commit(public, {})
    found = mirrors(tmp_path)
    remote = f"{server.url}/public"
    head = found.commit(remote, "main")
    with pytest.raises(SourceError) as caught:
        found.tree(remote, head)
    assert str(caught.value).startswith(f"{remote}: the submodule sub")
    assert not [path for path in tmp_path.glob("git/trees/*") if not path.name.startswith(".")]
    assert b"canary\n" not in digest_of(tmp_path / "git").values()


def test_a_submodule_of_this_machine_for_a_repository_of_this_machine(tmp_path):
    repository(tmp_path / "sub", {"s": "s\n"})
    app = repository(tmp_path / "app", {"a": "a\n"})
    git(app, "submodule", "add", "-q", "../sub", "sub")
    head = commit(app, {})
    tree = mirrors(tmp_path).tree(str(app), head)
    assert (tree / "sub" / "s").read_text() == "s\n"


def test_every_byte_as_it_was_committed(tmp_path):
    files = {
        "crlf.txt": b"a\r\nb\r\n", "lf.txt": b"a\nb\n", "id.txt": b"$Id$\n", "large.bin": b"pointer\n", "wide.u": b"a\n",
        ".gitattributes": b"*.txt text=auto eol=crlf ident\n*.bin filter=lfs\n*.u working-tree-encoding=UTF-16\n",
    }  # fmt: skip
    place = tmp_path / "app"
    place.mkdir()
    git(place, "init", "-q", "-b", "main")
    (place / ".git" / "info").mkdir(exist_ok=True)
    (place / ".git" / "info" / "attributes").write_text("* -text !eol -ident -filter !working-tree-encoding\n")
    (place / "run").write_text("x")
    (place / "run").chmod(0o755)
    (place / "link").symlink_to("/nowhere")
    head = commit(place, files)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        '[core]\n autocrlf = true\n[filter "lfs"]\n smudge = echo smudged\n required = true\n'
    )
    before = os.umask(0o077)
    try:
        tree = mirrors(tmp_path).tree(str(place), head)
    finally:
        os.umask(before)
    assert {name: data for name, data in digest_of(tree).items() if name in files} == files
    assert os.readlink(tree / "link") == "/nowhere"
    assert (tree / "run").stat().st_mode & 0o777 == 0o755 and (tree / "lf.txt").stat().st_mode & 0o777 == 0o644


def test_hooks_and_variables_of_the_caller_reach_nothing(tmp_path, app, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (hooks / "post-checkout").chmod(0o755)
    found = mirrors(tmp_path, GIT_DIR="/nowhere", GIT_INDEX_FILE="/nowhere", GIT_CONFIG_GLOBAL="/nowhere")
    (tmp_path / "home" / ".gitconfig").write_text(f"[core]\n hooksPath = {hooks}\n")
    assert found.tree(str(app), found.commit(str(app), "main")).is_dir()
    assert not (tmp_path / "ran").exists()


def test_the_users_credential_helper(tmp_path, app, server):
    server.password = "me:s3cret"
    found = mirrors(tmp_path)
    url = f"{server.url}/app"
    with pytest.raises(SourceError, match="git ls-remote failed"):
        found.commit(url, "main")
    home = tmp_path / "home"
    (home / ".gitconfig").write_text("[credential]\n helper = store\n")
    (home / ".git-credentials").write_text(server.url.replace("http://", "http://me:s3cret@") + "\n")
    tree = found.tree(url, found.commit(url, "main"))
    assert (tree / "a.txt").read_text() == "one\n"
    for path in (tmp_path / "git").rglob("config"):
        assert "s3cret" not in path.read_text()


def test_a_password_in_a_url_is_used_and_not_shown(tmp_path, app, server):
    spied = tmp_path / "bin"
    spied.mkdir()
    real = shutil.which("git")
    (spied / "git").write_text(
        f'#!/bin/sh\nps -eo args >>{tmp_path}/seen\necho "$@" >>{tmp_path}/seen\nexec {real} "$@"\n'
    )
    (spied / "git").chmod(0o755)
    server.password = "me:s3cret"
    url = server.url.replace("http://", "http://me:s3cret@") + "/app"
    found = mirrors(tmp_path, PATH=f"{spied}:{os.environ['PATH']}")
    tree = found.tree(url, found.commit(url, "main"))
    assert (tree / "a.txt").read_text() == "one\n"
    assert "ls-remote" in (tmp_path / "seen").read_text() and "s3cret" not in (tmp_path / "seen").read_text()
    assert found.tree(f"{server.url}/app", tree.name.partition("-")[0]) == tree
    server.password = "me:other"
    with pytest.raises(SourceError) as caught:
        mirrors(tmp_path).commit(url, "main")
    assert "s3cret" not in f"{caught.value} {caught.value.detail} {caught.value.hint}" and server.url in str(
        caught.value
    )


def test_what_is_not_there_is_named(tmp_path, app, server):
    found = mirrors(tmp_path)
    url = f"{server.url}/app"
    with pytest.raises(SourceError, match="no branch, tag or commit 'mian'") as caught:
        found.commit(url, "mian")
    assert caught.value.hint == "Did you mean main?"
    with pytest.raises(SourceError, match="no branch, tag or commit 'abcdef12'"):
        found.commit(url, "abcdef12")
    with pytest.raises(SourceError, match="git ls-remote failed"):
        found.commit(f"{server.url}/none", "main")
    with pytest.raises(SourceError):
        found.commit(url, "0" * 40)
    for ref in ("$(touch x)", "--upload-pack=touch x", "a\nb", "*"):
        with pytest.raises(SourceError):
            found.commit(url, ref)
    assert not (tmp_path / "git" / "x").exists()


@pytest.mark.parametrize("remote", ["ext::touch x", "foo::bar", "-x", "--upload-pack=x"])
def test_other_protocols_are_refused(tmp_path, remote):
    with pytest.raises(SourceError):
        mirrors(tmp_path).commit(remote, "main")


def test_leftovers_of_a_killed_process_and_a_damaged_mirror(tmp_path, app):
    remote = str(app)
    found = mirrors(tmp_path)
    head = found.commit(remote, "main")
    tree = found.tree(remote, head)
    (mirror,) = (tmp_path / "git" / "mirrors").iterdir()
    shutil.rmtree(tree)
    (tree.parent / f".{tree.name}.part").mkdir()
    (tree.parent / f".{tree.name}.part" / "old").write_text("x")
    (tree.parent / f".{tree.name}.index.lock").write_text("")
    (mirror / "shallow.lock").write_text("")
    second = commit(app, {"a.txt": "next\n"})
    assert digest_of(found.tree(remote, head)) == {"a.txt": b"one\n", "d/b": b"two\n"}
    assert (found.tree(remote, second) / "a.txt").read_text() == "next\n"
    for pack in mirror.glob("objects/pack/*"):
        pack.unlink()
    shutil.rmtree(mirror / "objects")
    (mirror / "objects").mkdir()
    shutil.rmtree(tree)
    assert digest_of(found.tree(remote, head)) == {"a.txt": b"one\n", "d/b": b"two\n"}


def test_a_tree_from_before_a_restart_is_made_anew(tmp_path, app, monkeypatch):
    found = mirrors(tmp_path)
    head = found.commit(str(app), "main")
    tree = found.tree(str(app), head)
    (tree / "a.txt").write_bytes(b"")  # what a file system may leave after a loss of power
    boot = tmp_path / "boot"
    boot.write_text("another")
    monkeypatch.setattr("kiln.sources.mirror._BOOT", boot)
    assert (found.tree(str(app), head) / "a.txt").read_text() == "one\n"


def test_processes_share_a_root(tmp_path, app, server):
    code = (
        "import sys; from pathlib import Path; from tests.sources.gitpeers import mirrors\n"
        "m = mirrors(Path(sys.argv[1])); print(m.tree(sys.argv[2], m.commit(sys.argv[2], 'main')))"
    )
    words = [sys.executable, "-c", code, str(tmp_path), f"{server.url}/app"]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert len({process.communicate()[0] for process in running}) == 1
    assert [process.returncode for process in running] == [0, 0, 0]
    assert server.asked.count("fetch") == 1


def test_cancelled(tmp_path, app):
    found = mirrors(tmp_path)
    found.cancel.cancel("stop")
    with pytest.raises(CancelledBuild):
        found.commit(str(app), "main")


def test_words_about_urls():
    assert shown("https://me:pw@host:1/x.git?q=1#f") == "https://host:1/x.git"
    assert shown("git@host:a/b.git") == "git@host:a/b.git" and shown("http://[bad") == "http://[bad"
    assert without_password("ssh://me@host/x") == ("ssh://me@host/x", {})
    assert without_password("https://tok@h/x?a=b") == ("https://h/x?a=b", {"credential.https://h.username": "tok"})
    assert without_password("https://a%40b:c@h/x")[1] == {
        "http.https://h/.extraHeader": "Authorization: Basic YUBiOmM="
    }
    assert [is_local(text) for text in ("/a", "./a:b", "file:///a", "host:a", "https://a/b", "a")] == [
        True,
        True,
        True,
        False,
        False,
        True,
    ]
    assert is_git("https://h/x.git#main:sub") and not is_git("https://h/x.tar.gz") and not is_git("./x")


@pytest.mark.parametrize(
    ("url", "parent", "expected"),
    [
        ("../c.git", "https://h/a/b.git", "https://h/a/c.git"),
        ("./c", "https://h/a/b/", "https://h/a/b/c"),
        ("../../x/c", "git@h:a/b.git", "git@h:x/c"),
        ("../c", "git@h:b", "git@h:c"),
        ("../c", "/srv/b", "/srv/c"),
    ],
)
def test_relative_submodule_urls(url, parent, expected):
    assert _relative(url, parent) == expected
