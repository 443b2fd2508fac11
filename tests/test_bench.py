"""The benchmark's own parts: contents, statistics, tables, pictures, what is measured."""

import json
import os
import re
import sys
import tarfile
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench import content, growth, picture, report, table, workloads
from bench.limit import _as_tar, _beside
from bench.measure import Failed, measured, tree, tree_cpu
from bench.results import Outcome, Ratio, Results, Run, machine, read
from bench.rounds import _turned
from bench.sides import Buildah, Docker, Job, Kiln
from bench.workloads import WORKLOADS, Bases, chosen, new_package, new_steps, one_leaf, one_small_file


def outcome(key: str = "W1", **times: list[float]) -> Outcome:
    made = Outcome(key, "a title & more", aim=0.5)
    for side, seconds in times.items():
        made.runs[side] = [Run(value, 2 * value, 50_000_000, int(1_000_000 * value)) for value in seconds]
    return made


def results() -> Results:
    known = {"processor": "P", "cores": "2", "memory": "8 GB", "kernel": "6", "system": "Debian", "python": "3"}
    first = outcome(kiln=[1.0, 3.0, 2.0], docker=[10.0, 10.0, 10.0], newest=[4.0, 4.0, 8.0])
    first.limit = [0.5, 0.7, 0.6]
    return Results(known, {"kiln": "1", "docker": "2", "newest": "3", "absent": "4"}, [first])


class TestStatistics:
    def test_the_best_peer_has_the_least_median(self):
        assert results().outcomes[0].best_peer() == "newest"

    def test_the_ratio_is_taken_pair_by_pair(self):
        assert results().outcomes[0].ratio() == Ratio(0.25, 0.25, 0.75)

    def test_the_aim(self):
        assert results().outcomes[0].reached() is True
        assert outcome(kiln=[3.0], docker=[4.0]).reached() is False
        assert outcome(kiln=[3.0]).reached() is None
        absolute = Outcome("W1c", "", aim_seconds=0.2, runs={"kiln": [Run(0.1, 0, 0)]})
        assert absolute.reached() is True

    def test_sizes_are_compared_with_the_least(self):
        assert results().outcomes[0].size_ratio() == pytest.approx(2.0 / 4.0)
        assert Outcome("W", "", runs={"kiln": [Run(1, 1, 1)], "docker": [Run(1, 1, 1)]}).size_ratio() is None

    def test_nothing_measured(self):
        empty = Outcome("W", "")
        assert (empty.best_peer(), empty.ratio(), empty.limit_median(), empty.median("kiln")) == ("", None, None, None)

    def test_a_file_keeps_everything(self, tmp_path: Path):
        results().write(tmp_path / "r.json")
        assert read(tmp_path / "r.json") == results()

    def test_the_machine(self):
        assert set(machine()) == {"processor", "cores", "memory", "kernel", "system", "python"}


class TestTable:
    def test_columns_are_the_sides_that_ran(self):
        text = table.markdown(results())
        assert text.splitlines()[0] == "|  | seconds | kiln | docker | newest | limit | ratio to the best peer | aim |"
        assert "| W1 | a title & more | 2.00 | 10.0 | 4.00 | 0.60 | 0.25 (0.25 to 0.75) | 0.5, reached |" in text
        assert "absent CPU" not in text

    def test_rows_are_as_wide_as_their_head(self):
        lines = [line for line in table.markdown(results()).splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines[:3]}) == len({line.count("|") for line in lines[3:]}) == 1

    def test_a_fault_is_told(self):
        broken = results()
        broken.outcomes[0].faults["buildah"] = "no"
        assert "W1: buildah failed." in table.markdown(broken)

    @pytest.mark.parametrize(
        ("value", "text"),
        [(None, "-"), (0.0456, "0.046"), (0.456, "0.46"), (4.56, "4.56"), (45.67, "45.7"), (456.7, "457")],
    )
    def test_numbers(self, value, text):
        assert table.number(value) == text


class TestPicture:
    def test_bars(self):
        drawn = picture.bars(results())
        ElementTree.fromstring(drawn)
        widths = [float(found) for found in re.findall(r'width="([\d.]+)" height="12"', drawn)]
        assert widths == [88.0, 440.0, 176.0, 26.4]
        assert "prefers-color-scheme: dark" in drawn

    def test_lines(self):
        points = [growth.Point("files", size, size / 1000, 1.0, size * 1000) for size in (1000, 2000, 100_000)]
        ElementTree.fromstring(growth.picture(points))
        assert "| small files in one COPY | 2k | 2.00 | 1.00 | 2.00 |" in growth.markdown(points)

    def test_one_point(self):
        ElementTree.fromstring(picture.lines([[picture.Line("t", "s", [(1, 1)])]]))


class TestReport:
    def test_between_the_markers(self, tmp_path: Path):
        document = tmp_path / "p.md"
        document.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n")
        report.insert(document, "bench", "new")
        assert document.read_text() == "before\n<!-- bench -->\nnew\n<!-- /bench -->\nafter\n"

    def test_no_markers(self, tmp_path: Path):
        (tmp_path / "p.md").write_text("<!-- bench -->\n")
        with pytest.raises(ValueError, match="has no markers"):
            report.insert(tmp_path / "p.md", "bench", "new")

    def test_a_folder_and_a_file(self, tmp_path: Path):
        report.write_all(results(), tmp_path / "a")
        report.write_all(results(), tmp_path / "b.json")
        assert sorted(path.name for path in tmp_path.rglob("*.*")) == [
            "b.json", "b.md", "b.svg", "results.json", "results.md", "results.svg",
        ]  # fmt: skip


class TestContent:
    def test_a_package(self, tmp_path: Path):
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            content.write_package(tmp_path / name, seed, files=20, raw=2_000_000)
        first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
        assert first == again != other
        assert 0.5 < len(first) / 2_000_000 < 0.63
        with tarfile.open(tmp_path / "a") as archive:
            assert [member.size for member in archive] == [100_000] * 20

    def test_a_tree(self, tmp_path: Path):
        paths = content.write_tree(tmp_path, content.small_sizes(250), 1, plain=True)
        assert [path.stat().st_size for path in paths] == content.small_sizes(250)
        assert len(list(tmp_path.iterdir())) == 3

    def test_mixed_sizes(self):
        assert sum(content.mixed_sizes(2_000_000_000)) == pytest.approx(2_000_000_000, rel=0.01)


class TestWorkloads:
    bases = Bases("host/base:1", "host/big:1")

    def test_keys(self):
        assert [load.key for load in chosen("W4,W1=")] == ["W1", "W4", "W4b", "W4c"]
        assert chosen("") == list(WORKLOADS)
        with pytest.raises(ValueError, match="no workload W9"):
            chosen("W9")

    def test_steps_change(self, tmp_path: Path):
        next(load for load in WORKLOADS if load.key == "W3").prepare(tmp_path, self.bases)
        before = (tmp_path / "Dockerfile").read_text().splitlines()
        new_steps(tmp_path, 7)
        after = (tmp_path / "Dockerfile").read_text().splitlines()
        assert before[0] == after[0] == "FROM host/base:1"
        assert len(after) == 11 and not set(before[1:]) & set(after[1:])

    def test_one_file_changes(self, tmp_path: Path):
        content.write_tree(tmp_path / "src", [10] * 710, 1, plain=True)
        before = {path: path.read_bytes() for path in tmp_path.rglob("f*")}
        one_small_file(tmp_path, 1)
        assert [path.name for path, data in before.items() if path.read_bytes() != data] == ["f700"]

    def test_the_tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(workloads, "IMAGES", 10)
        next(load for load in WORKLOADS if load.key == "W5").prepare(tmp_path, self.bases)
        document = json.loads((tmp_path / "docker-bake.json").read_text())
        assert len(document["target"]) == 10
        assert document["target"]["i3"]["tags"] == ["${PREFIX}i3:latest"]
        one_leaf(tmp_path, 5)
        assert (tmp_path / "src/i9/app/f1.txt").read_text() == "changed 5\n"

    def test_a_package_changes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(content, "write_package", lambda path, number: path.write_text(str(number)))
        new_package(tmp_path, 3)
        assert (tmp_path / "package.tar.gz").read_text() == "3"


class TestSides:
    job = Job(Path("/c"), "h:1/r:1")

    def test_commands(self, tmp_path: Path):
        assert Kiln(["kiln"], tmp_path).commands(self.job)[0][-4:] == ["--push", "-t", "h:1/r:1", "/c"]
        docker = Docker("d", tmp_path)
        assert [command[-1] for command in docker.commands(self.job)] == ["/c", "h:1/r:1"]
        assert "DOCKER_BUILDKIT=1" in docker.commands(self.job)[0]
        newest = Docker("n", tmp_path, ["enter"], buildx=True).commands(self.job)
        assert len(newest) == 1 and newest[0][0] == "enter" and "--push" in newest[0]
        assert [command[-1] for command in Buildah("b", tmp_path).commands(self.job)] == ["/c", "h:1/r:1"]

    def test_who_can_make_a_tree(self, tmp_path: Path):
        job = Job(Path("/c"), "h:1/r-0/", tree=True, shared=True)
        assert Docker("d", tmp_path).commands(job) == Buildah("b", tmp_path).commands(job) == []
        assert "shared.json" in Docker("n", tmp_path, buildx=True).commands(job)[0][-1]
        assert "bake" in Kiln(["kiln"], tmp_path).commands(job)[0]

    def test_turns(self):
        sides = [Kiln([], Path(), name) for name in "abc"]
        assert ["".join(side.name for side in _turned(sides, number)) for number in range(4)] == [
            "abc",
            "bca",
            "cab",
            "abc",
        ]

    def test_parallel_builds(self):
        words = growth.commands(["kiln"], Path("/h"), growth.GROWTHS[-1], ["/a", "/b"])
        assert words[:2] == ["sh", "-c"] and words[2].count("kiln --home /h build") == 2 and words[2].count("wait") == 2


class TestMeasure:
    def test_processor_time_and_memory_of_all_processes(self):
        work = "x = bytearray(60_000_000)\nimport time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
        command = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {work!r}])"
        cost = measured([[sys.executable, "-S", "-c", command]])
        assert cost.cpu > 0.28 and cost.seconds > 0.28 and cost.memory > 60_000_000

    def test_a_failure_has_its_command_and_its_words(self):
        with pytest.raises(Failed, match=r"(?s)exit 3.*ended with 3.*oh no"):
            measured([["sh", "-c", "echo oh no; exit 3"]])
        with pytest.raises(Failed, match="no such program"):
            measured([["no such program"]])

    def test_a_tree_of_processes(self):
        assert next(iter(tree([os.getpid()]))) == os.getpid()
        assert tree_cpu([os.getpid()]) > 0
        assert tree_cpu([2**22 + 1]) == 0


class TestLimit:
    def test_blocks_come_in_order(self):
        assert list(_beside(bytes([number]) for number in range(100))) == [bytes([number]) for number in range(100)]

    def test_a_fault_crosses_the_thread(self):
        def blocks():
            yield b"x"
            raise OSError("torn")

        with pytest.raises(OSError, match="torn"):
            list(_beside(blocks()))
        assert threading.active_count() < 10

    def test_as_many_bytes_as_a_tar(self, tmp_path: Path):
        paths = content.write_tree(tmp_path, [0, 1, 512, 2_000_000], 1)
        assert sum(map(len, _as_tar(paths))) == 4 * 512 + 512 + 512 + 2_000_384 - 384 + 384


def test_of_several_results_the_last_counts() -> None:
    def one(key: str, seconds: float) -> Results:
        return Results({"cores": "2"}, {"kiln": "1"}, [Outcome(key, "t", runs={"kiln": [Run(seconds, 1, 1)]})])

    found = report.merged([one("W3", 1.0), one("W1", 2.0), one("W3", 3.0)])
    assert [(outcome.key, outcome.median("kiln")) for outcome in found.outcomes] == [("W1", 2.0), ("W3", 3.0)]
