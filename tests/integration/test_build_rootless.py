"""A plain user builds, without any right of root, what root builds."""

import os
import pwd
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.services import SOURCE, Kiln, ask, cgroups_of, processes_with, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.root]
TEXT = """FROM scratch AS start
ADD base.tar /
FROM start AS tools
RUN mkdir -p /out/d && echo tool > /out/tool && chown -R 1234:2345 /out && chmod 4755 /out/tool
FROM start
COPY --chown=app:app file /home/app/file
COPY --from=tools /out /out
USER app
WORKDIR /home/app/work
RUN id -u > /tmp/id && id -G > /tmp/groups && echo x > made && mkdir sub && stat -c %u:%g /out/tool > /tmp/owner
USER root
RUN rm -r /srv/data && mkdir /srv/data && chown 77:88 /srv/data && cp -p /out/tool /copied && rm /etc/motd && ln /hl/a /hl/c
RUN cat /proc/self/uid_map > /dev/null && touch /owned && chown 65534:65534 /owned
"""


def run(*words):
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def user():
    """The name of a new user with ids of its own to give away."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a user for the test")
    name = f"kilntest{os.getpid()}"
    done = run("useradd", "--create-home", "--home-dir", f"/var/tmp/{name}", name)
    if done.returncode:
        pytest.skip(f"a user cannot be made: {done.stderr.strip()}")
    try:
        with open("/etc/subuid") as file:
            if f"{name}:" not in file.read():
                number = 500000 + os.getpid() % 1000 * 70000
                run(
                    "usermod",
                    f"--add-subuids={number}-{number + 65535}",
                    f"--add-subgids={number}-{number + 65535}",
                    name,
                )
        yield name
    finally:
        run("userdel", "--force", "--remove", name)


@pytest.fixture
def rootless(user):
    """The command as that user, with a home of its own."""
    made = plain(user, f"/var/tmp/{user}/kiln-home")
    if run("runuser", "-u", user, "--", "unshare", "--user", "true").returncode:
        pytest.skip("this machine does not let plain users make user namespaces")
    yield made
    subprocess.run(["rm", "-rf", str(made.home)], check=False)


def plain(user, home):
    """Python of this version that the user may run, with the packages of this one."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    env = {"PYTHONPATH": os.pathsep.join([str(SOURCE), *packages]), "HOME": f"/var/tmp/{user}", "USER": user}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        kiln = Kiln(home, env, prefix=("runuser", "-u", user, "--"), python=program)
        done = subprocess.run(kiln.argv("version"), env=kiln.environment(), cwd="/", capture_output=True, check=False)
        if done.returncode == 0:
            return replace(kiln, home=type(SOURCE)(home))
    pytest.skip(f"user {user} can run no {version} with Kiln's packages: {done.stderr.decode()[-300:]}")


@pytest.fixture
def place(busybox_home, open_folder):
    made = open_folder / "context"
    made.mkdir()
    (made / "base.tar").write_bytes((busybox_home.parent / "context" / "base.tar").read_bytes())
    (made / "file").write_text("file\n")
    (made / "Dockerfile").write_text(TEXT)
    return made


def test_it_makes_what_root_makes(rootless, place, kiln, registry):
    name = f"{registry.host}/rootless/{rootless.env['USER']}:1"
    rootless.build(place, "-t", name, "--push", "-t", f"{registry.host}/rootless/mine:1")
    kiln.build(place, "-t", "root")
    ask(registry.host, "GET", "/v2/")
    kiln.run("pull", name)
    kiln.run("tag", name, "plain")
    mine, roots = kiln.files("plain"), kiln.files("root")
    assert {
        path: (mine.get(path), roots.get(path)) for path in {*mine, *roots} if mine.get(path) != roots.get(path)
    } == {}
    assert mine["tmp/id"].content == "=1234\n" and mine["home/app/work/made"].uid == 1234
    assert (mine["out/tool"].uid, mine["out/tool"].gid, mine["out/tool"].mode) == (1234, 2345, 0o4755)
    assert (mine["srv/data"].uid, mine["srv/data"].gid) == (77, 88) and "srv/data/keep" not in mine
    assert mine["owned"].uid == 65534 and "etc/motd" not in mine
    owners = {member.uid for layer in rootless.layers("mine:1") for member in layer.values()}
    assert max(owners) <= 65534, "an id of the host is in a layer"


def test_it_is_cached_and_pruned(rootless, place):
    rootless.build(place, "-t", "x")
    digest = rootless.digest("x:latest")
    assert "0 steps ran" in rootless.build(place, "-t", "x").err
    assert rootless.digest("x:latest") == digest
    rootless.run("prune")
    rootless.build(place, "-t", "y")
    assert rootless.damaged() == [] and rootless.scratch() == []


def test_kill_9_leaves_nothing_that_the_next_build_cannot_remove(rootless, place):
    (place / "Dockerfile").write_text(
        "FROM scratch\nADD base.tar /\nRUN mkdir /d && touch /d/f && chown -R 1234 /d && chmod 700 /d && sleep 987654321\n"
    )
    process = rootless.start("build", place)
    wait_for(lambda: any(Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in processes_with("987654321")), 20)
    os.killpg(process.pid, 9)
    process.communicate()
    wait_for(lambda: not processes_with("987654321"), 5)
    (place / "Dockerfile").write_text("FROM scratch\nADD base.tar /\nRUN true\n")
    rootless.build(place, "-t", "x")
    assert rootless.scratch() == []


def test_it_cannot_read_what_the_user_cannot(rootless, place):
    """Root inside of the namespace is the user outside."""
    (place / "closed").write_text("x")
    (place / "closed").chmod(0o600)
    (place / "Dockerfile").write_text("FROM scratch\nCOPY closed /\n")
    ended = rootless.build(place, code=1)
    assert "Permission denied" in ended.err and "closed" in ended.err


def test_without_subordinate_ids(user, open_folder, place):
    """A user without a range of ids is told what to do; builds without RUN need none."""
    lines = Path("/etc/subuid").read_text().splitlines()
    first, count = next(map(int, line.split(":")[1:]) for line in lines if line.startswith(f"{user}:"))
    ids = f"{first}-{first + count - 1}"
    kiln = plain(user, f"/var/tmp/{user}/other-home")
    assert run("usermod", f"--del-subuids={ids}", f"--del-subgids={ids}", user).returncode == 0
    try:
        ended = kiln.build(place, "-t", "x", code=1)
        assert "a range of ids" in ended.err and "/etc/subuid" in ended.err and f"{user}:100000:65536" in ended.err
        (place / "Dockerfile").write_text("FROM scratch\nADD base.tar /\nCOPY --chown=5:6 file /\n")
        kiln.build(place, "-t", "x")
        assert kiln.files("x")["file"].uid == 5
    finally:
        run("usermod", f"--add-subuids={ids}", f"--add-subgids={ids}", user)
        subprocess.run(["rm", "-rf", str(kiln.home)], check=False)


def test_the_user_is_who_the_test_means(rootless, user):
    assert pwd.getpwnam(user).pw_uid != 0 and cgroups_of(os.getpid()) == []
