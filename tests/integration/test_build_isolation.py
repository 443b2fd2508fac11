"""What the command of a RUN step can see and do: its own machine, and nothing of the host's."""

import os
import socket
import subprocess

import pytest

from tests.services import Http

pytestmark = [
    pytest.mark.integration,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="RUN steps in these tests run as root"),
]


@pytest.fixture
def kiln(kiln_on_each_runtime):
    return kiln_on_each_runtime


@pytest.fixture
def say(kiln, folder):
    """What commands write, by name: `say(name="command")`, all in one step."""

    def run(*flags, before="", **commands):
        lines = "".join(f"( {command} ) > /said/{name} 2>&1\n" for name, command in commands.items())
        text = f"FROM base\nRUN mkdir -m 777 /said\n{before}RUN <<END\nset +e\n{lines}true\nEND\n"
        kiln.build(folder(text), "-t", "said", *flags)
        files = kiln.files("said")
        return {name: files[f"said/{name}"].content.removeprefix("=").rstrip("\n") for name in commands}

    return run


def test_namespaces_are_its_own(say):
    said = say(**{name: f"readlink /proc/self/ns/{name}" for name in ("pid", "mnt", "ipc", "uts", "net")})
    mine = {name: os.readlink(f"/proc/self/ns/{name}") for name in said}
    assert [name for name in said if said[name] == mine[name]] == ["net"]
    said = say("--network", "none", net="readlink /proc/self/ns/net", who="hostname", pids="ls -d /proc/[0-9]* | wc -l")
    assert said["net"] != mine["net"] and said["who"] == "buildkitsandbox" and int(said["pids"]) < 6


def test_capabilities_and_privileges(say):
    """Docker's default set: 0xa80425fb; not inheritable (CVE-2022-24769)."""
    said = say(
        **{
            name: f"grep {name}: /proc/self/status | cut -f2"
            for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "Seccomp")
        }
    )
    assert {said[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"00000000a80425fb"}
    assert (said["CapInh"], said["CapAmb"], said["Seccomp"]) == ("0" * 16, "0" * 16, "2")


def test_what_is_refused(say):
    said = say(
        mount="mount -t tmpfs none /mnt && echo did",
        bind="mount -o bind /etc /tmp && echo did",
        remount="mount -o remount,rw /proc/sys && echo did",
        sysctl="echo 1 > /proc/sys/kernel/panic && echo did",
        trigger="echo h > /proc/sysrq-trigger && echo did",
        hostname="hostname other && echo did",
        cgroup="mkdir /sys/fs/cgroup/x && echo did",
        disk="mknod /disk b 254 0 && head -c 1 /disk | wc -c && rm -f /disk",
        memory="mknod /mem c 1 1 && head -c 1 /mem | wc -c && rm -f /mem",
        clock="date -s 2001-01-01; date +%Y | grep -q 2001 && echo did",
    )
    assert [name for name, text in said.items() if "did" in text] == []
    assert said["disk"].endswith("\n0") and said["memory"].endswith("\n0"), said
    assert "not permitted" in said["disk"]


def test_the_filter_of_system_calls(say):
    """A new user namespace needs no capability: only the filter refuses it."""
    done = subprocess.run(["unshare", "--user", "true"], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("this machine refuses it outside of a step too, so that the filter could not be told")
    said = say(before="USER app\n", unshare="/bin/busybox unshare -U true && echo did")
    assert "not permitted" in said["unshare"] and "did" not in said["unshare"]


def test_what_is_hidden(say):
    said = say(
        kcore="cat /proc/kcore 2> /dev/null | head -c 1 | wc -c", keys="cat /proc/keys | wc -c", timers="cat /proc/timer_list | wc -c",
        firmware="ls -A /sys/firmware | wc -l", readonly="grep -E ' (/proc/sys|/proc/bus|/proc/irq|/proc/fs|/sys) ' /proc/mounts | grep -vc ' ro,'",
        scsi="ls -A /proc/scsi 2> /dev/null | wc -l",
    )  # fmt: skip
    assert said == {"kcore": "0", "keys": "0", "timers": "0", "firmware": "0", "readonly": "0", "scsi": "0"}


def test_devices(say):
    said = say(
        names="ls /dev | tr '\\n' ' '",
        null="echo x > /dev/null && echo good",
        random="head -c 4 /dev/urandom | wc -c",
        terminal="ls /dev/pts",
    )
    assert set(said["names"].split()) <= {
        "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero",
    }  # fmt: skip
    assert (said["null"], said["random"]) == ("good", "4")


def test_nothing_of_the_hosts_environment(new_kiln, folder):
    kiln = new_kiln(HOST_SECRET="SECRET-of-the-host", LC_ALL="C")
    kiln.build(folder("FROM base\nENV OWN=1\nRUN env | sort > /env; umask >> /env\n"), "-t", "x")
    names = {line.split("=")[0] for line in kiln.files("x")["env"].content.removeprefix("=").splitlines()}
    assert names == {"BASE", "HOME", "OWN", "PATH", "PWD", "SHLVL", "0022"} - ({"SHLVL"} - names)


def test_nothing_of_the_hosts_files(say, tmp_path):
    (tmp_path / "host").write_text("x")
    said = say(
        file=f"ls {tmp_path}/host", root="ls / | tr '\\n' ' '", mounts="cut -d' ' -f2 /proc/mounts | sort | tr '\\n' ' '",
        up="ls /proc/1/root/../../../../../.. | tr '\\n' ' '", fds="ls /proc/self/fd | wc -l", init="ls /proc/1/fd | wc -l",
        parent="ls /proc/1/cwd/work 2>&1",
    )  # fmt: skip
    assert "No such file" in said["file"] and said["up"] == said["root"]
    assert all(
        point.startswith(("/dev", "/proc", "/sys", "/etc/resolv.conf", "/etc/hosts")) or point == "/"
        for point in said["mounts"].split()
    )
    assert int(said["fds"]) <= 4 and int(said["init"]) <= 4, "descriptors of the host's are open"


def test_no_network(say):
    with Http({}) as server:
        port = server.host.partition(":")[2]
        code = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /bin/busybox timeout 5 /bin/busybox nc 127.0.0.1"
        said = say(
            "--network",
            "none",
            tcp=f"{code} {port} | grep -q HTTP && echo reached",
            links="ls /sys/class/net | tr '\\n' ' '",
        )
        assert "reached" not in said["tcp"]
        assert said["links"].split() == ["lo"]
        assert "reached" in say(tcp=f"{code} {port} | grep -q HTTP && echo reached")["tcp"]


def test_abstract_sockets_of_the_host(say):
    """Without a network of its own a step could reach them; with --network none it cannot."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0kiln-test-{os.getpid()}")
        assert "kiln-test" not in say("--network", "none", unix="cat /proc/net/unix")["unix"]


def test_who_it_is(say):
    assert say(who="id -u", groups="id -G") == {"who": "0", "groups": "0 10"}


def test_stubs_and_mounts_are_not_in_the_layer(kiln, folder):
    """What the runtime lays over the file system is not what the command made."""
    kiln.build(folder("FROM base\nRUN true\nRUN echo x > /x\n"), "-t", "x")
    first, second = kiln.layers("x:latest")[1:]
    assert list(first) == [] and list(second) == ["x"]


def test_every_runtime_mounts_and_names_alike(kiln, folder):
    """As runc does it: a tmpfs has the mode of the folder below it, else 1777; a folder that is made to mount on is plain; the
    home of a user without a row is /."""
    text = """FROM base
RUN mkdir -m 2750 /there
RUN --mount=type=tmpfs,target=/there --mount=type=tmpfs,target=/new/inside \\
    stat -c '%n %a' /there /new /new/inside > /modes && touch /new/kept
USER 4321
RUN echo "$HOME" > /tmp/home
"""
    kiln.build(folder(text), "-t", "x")
    files = kiln.files("x")
    assert files["modes"].content == "=/there 2750\n/new 755\n/new/inside 1777\n"
    assert files["tmp/home"].content == "=/\n"
    assert (files["new"].mode, files["there"].mode) == (0o755, 0o2750)
