"""The table of bases, the templates and the samples of `kiln package`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiln.dockerfile import parser
from kiln.errors import KilnError, UsageError
from kiln.sources.package import bases, templates
from kiln.sources.package.templates import Template

SHIPPED = {"tomcat", "jar", "php", "python", "nodejs", "static", "raw"}
TABLE = '[base.mine]\nimage = "registry.test:5000/team/mine:2"\ntemplate = "raw"\nport = 9000\n'


def written(folder: Path, text: str, name: str = "bases.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def template(text: str) -> Template:
    return Template("mine", text, "mine.dockerfile")


def test_shipped_bases():
    found = bases.load()
    assert {base.template for base in found.values()} == SHIPPED
    assert found["tomcat"].image == "kiln/base-tomcat:1" and found["tomcat"].port == 8080
    assert all(base.description and base.control == bases.CONTROL for base in found.values())
    assert found["jar"].place.endswith("bases.toml: base.jar")


def test_a_file_extends_and_replaces(tmp_path):
    file = written(tmp_path, TABLE + TABLE.replace("mine]", "tomcat]"))
    found = bases.load([file])
    assert next(iter(found)) == "tomcat" and found["tomcat"].image == "registry.test:5000/team/mine:2"
    assert found["mine"] == bases.Base("mine", "registry.test:5000/team/mine:2", "raw", 9000, "", f"{file}: base.mine")
    assert SHIPPED - {"raw"} < set(found)


def test_a_file_can_drop_those_before_it(tmp_path):
    assert set(bases.load([written(tmp_path, f"replace = true\n{TABLE}")])) == {"mine"}
    assert "mine" not in bases.load([written(tmp_path, TABLE), written(tmp_path, "replace = true\n", "second.toml")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TABLE + "size = 1\n", "base.mine: unknown key 'size'"),
        (TABLE.replace("9000", '"9000"'), "base.mine: port must be a number"),
        (TABLE.replace("9000", "true"), "base.mine: port must be a number"),
        (TABLE.replace("9000", "0"), "base.mine: port 0 is not between 1 and 65535"),
        (TABLE.replace("9000", "65536"), "base.mine: port 65536 is not"),
        (TABLE.replace('"raw"', '"perl"'), "base.mine: there is no template 'perl'"),
        (
            TABLE.replace("team/mine", "Team/Mine"),
            "base.mine: image: 'registry.test:5000/Team/Mine:2' is not an image reference",
        ),
        (TABLE.replace("mine:2", "mine:2\\nRUN x"), "base.mine: image: "),
        (TABLE + 'control = "bin/control"\n', "base.mine: control 'bin/control' is not the path of a program"),
        (TABLE + 'control = "/x\\", \\"y"\n', "is not the path of a program"),
        (TABLE + 'description = "a\\nb"\n', "base.mine: description has letters"),
        (TABLE.replace("image", "#"), "base.mine: image is missing"),
        (TABLE.replace("[base.mine]", '[base."a b"]'), "'a b' is not a name"),
        ("base = 3\n", "base is not a table"),
        ("[base]\nmine = 3\n", "base.mine: must be a table"),
        ("replace = 1\n", "replace is true or false"),
        ("bases = {}\n", "unknown key 'bases'"),
        ("[base", "cannot be read"),
    ],
)
def test_a_wrong_file_is_named_with_its_entry(tmp_path, text, said):
    file = written(tmp_path, text)
    with pytest.raises(UsageError) as refused:
        bases.load([file])
    assert str(file) in str(refused.value) and said in str(refused.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        bases.load([tmp_path / "bases.toml"])


def test_templates_of_a_folder_win(tmp_path):
    written(tmp_path, "FROM {{base}}\n", "raw.dockerfile")
    written(tmp_path, "FROM {{base}}\n", "perl.dockerfile")
    written(tmp_path, "", "README")
    assert set(templates.names([tmp_path, tmp_path / "none"])) == SHIPPED | {"perl"}
    assert templates.find("raw", [tmp_path]).place == str(tmp_path / "raw.dockerfile")
    assert templates.find("jar", [tmp_path]).place.endswith("templates/jar.dockerfile")
    file = written(tmp_path, TABLE.replace("raw", "perl"))
    assert bases.load([file], [tmp_path])["mine"].template == "perl"
    with pytest.raises(UsageError, match="there is no template 'ruby'"):
        templates.find("ruby", [tmp_path])


@pytest.mark.parametrize("name", ["../raw", "", "a/b"])
def test_a_name_is_not_a_path(tmp_path, name):
    with pytest.raises(UsageError, match="there is no template"):
        templates.find(name, [tmp_path])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM {{base}}\nRUN {{script}}\n", r":2: unknown placeholder 'script'"),
        ("{{#control}}\nX\n", "section 'control' is not ended"),
        ("\n{{#control}}{{/htdocs}}", ":2: {{/htdocs}} ends a section that is not the last one opened"),
        ("{{/control}}", ":1: {{/control}} ends"),
        ("{{#../control}}{{/../control}}", "neither a placeholder nor a path"),
        ("{{}}", "unknown placeholder ''"),
    ],
)
def test_a_wrong_template_is_refused_when_it_is_read(tmp_path, text, said):
    file = written(tmp_path, text, "mine.dockerfile")
    with pytest.raises(UsageError) as refused:
        templates.find("mine", [tmp_path])
    assert str(refused.value).startswith(str(file)) and said in str(refused.value)


def test_sections():
    text = (
        "a{{#control}} b{{/control}}{{^control}} c{{/control}}\n{{#x/y}}\nd {{app}}\n{{#z}}\ne\n{{/z}}\n{{/x/y}}\nf\n"
    )
    assert templates.render(template(text), {"app": "shop"}) == "a c\nf\n"
    assert templates.render(template(text), {"app": "shop"}, {"control", "x/y"}) == "a b\nd shop\nf\n"
    assert templates.render(template(text), {"app": "shop"}, {"z"}) == "a c\nf\n"
    assert templates.render(template(text), {"app": "shop"}, {"x/y", "z"}) == "a c\nd shop\ne\nf\n"
    assert templates.sections(template(text)) == {"control", "x/y", "z"}


def test_a_section_of_a_placeholder_asks_for_its_value_not_for_a_file():
    text = template("{{#file}}[{{file}}]{{/file}}{{^file}}none{{/file}}")
    assert templates.render(text, {"file": "hello"}) == "[hello]"
    assert templates.render(text, {"file": ""}, {"file"}) == templates.render(text, {}) == "none"


def test_a_folder_need_not_be_named_and_only_what_is_written_is_checked():
    text = template("{{#htdocs}}site{{/htdocs}}{{#control}}{{main}}{{/control}}")
    assert templates.render(text, {"main": "org.example.Outer$Main"}, {"htdocs/index.php"}) == "site"
    assert templates.render(text, {}, {"htdocs.txt"}) == ""


def test_what_is_not_given():
    with pytest.raises(UsageError, match=r"nothing is given for \{\{port\}\}"):
        templates.render(template("EXPOSE {{port}}"), {})
    with pytest.raises(UsageError, match="unknown placeholder 'colour'"):
        templates.render(template(""), {"colour": "red"})


HOSTILE = [
    "a\nRUN x",
    "a b",
    'a"',
    "a'",
    "a\\",
    "$HOME",
    "a\0",
    "{{base}}",
    "a#b",
    "a*",
    "a[b",
    "a,b",
    "a;b",
    "a`b`",
    "é",
    "a\u2028",
    "-a",
]


@pytest.mark.parametrize("name", templates.PLACEHOLDERS)
@pytest.mark.parametrize("value", HOSTILE)
def test_values_that_could_say_more_are_refused(name, value):
    with pytest.raises(UsageError, match=r"cannot be put into a Dockerfile|is not an image reference"):
        templates.render(template(f"{{{{{name}}}}}"), {name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("port", "65536"), ("port", "08"), ("file", "../x"), ("command", "/../x"), ("base", "a//b")]
)
def test_values_out_of_range(name, value):
    with pytest.raises(UsageError):
        templates.render(template(f"{{{{{name}}}}}"), {name: value})


@given(name=st.sampled_from(sorted(templates.PLACEHOLDERS)), value=st.text(max_size=12))
def test_no_value_ends_a_word_or_a_line(name, value):
    try:
        text = templates.render(template(f"LABEL a={{{{{name}}}}} b"), {name: value})
    except UsageError:
        return
    assert text == f"LABEL a={value} b" and len(text.split()) == 3
    assert not set(text) & set("\"'\\$`#;,*?{}\n\r\0")


FILES = [(), ("control",), ("htdocs",), ("requirements.txt", "pyproject.toml"), ("pyproject.toml", "control"),
         ("config/nginx.conf", "config/php.ini", "config/php-fpm.conf", "config"), ("htdocs", "config/php.ini", "control")]  # fmt: skip


def rendered(name: str, files, **more: str) -> str:
    base = next(base for base in bases.load().values() if base.template == name)
    values = base.values(app="shop", version="1", owner="team/a", **{"main": "", "file": ""} | more)
    return templates.render(templates.find(name), values, files)


@pytest.mark.parametrize("name", sorted(SHIPPED))
@pytest.mark.parametrize("files", FILES)
def test_shipped_templates_make_dockerfiles(name, files):
    text = rendered(name, files)
    names = [statement.keyword.upper() for statement in parser.parse(text.encode(), "Dockerfile").statements]
    assert names[0] == "FROM" and names.count("CMD") == 1 and names[-1] == "CMD"
    assert ("RUN" in names) == (name == "python" and bool({"requirements.txt", "pyproject.toml"} & set(files)))
    assert all("--link" in line for line in text.splitlines() if line.startswith("COPY"))
    own = 'CMD ["./control", "start"' in text
    assert own == ("control" in files)


def test_python_installs_what_is_asked_for():
    assert "-r requirements.txt" in rendered("python", {"requirements.txt", "pyproject.toml"})
    assert "/var/tmp/pip .\n" not in rendered("python", {"requirements.txt", "pyproject.toml"})
    assert "/var/tmp/pip .\n" in rendered("python", {"pyproject.toml"})
    assert "id=pip-team/a-shop," in rendered("python", {"pip_requirements.txt"})
    assert "ENV APP_MODULE=shop.wsgi:app\n" in rendered("python", set(), main="shop.wsgi:app")


def test_raw_takes_a_lone_file_and_a_named_program():
    assert "--chmod=0755 hello /opt/app/hello\n" in rendered("raw", {"hello"}, file="hello")
    assert "ENV APP_PROGRAM=bin/hello\n" in rendered("raw", {"bin/hello"}, main="bin/hello")
    assert "APP_PROGRAM" not in rendered("raw", {"control"}, main="control")


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_samples(name):
    files = bases.check_package(templates.find(name))
    assert files and sum(map(len, files.values())) < 4000
    assert not any("__pycache__" in path for path in files)


def test_there_is_no_sample_for_an_unknown_template():
    with pytest.raises(KilnError, match="no sample for template 'mine'"):
        bases.check_package(template(""))


SCRIPTS = [
    path for path in Path(__file__).parents[2].glob("bases/**/*") if path.is_file() and path.read_bytes()[:3] == b"#!/"
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(path.parents[3])))
def test_scripts_of_the_bases_are_strict_and_can_be_read(path):
    text = path.read_text()
    assert "\nset -eu\n" in text
    subprocess.run([text[2:].split("\n")[0], "-n", path], check=True)
