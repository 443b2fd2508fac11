"""Who imports whom: the table of docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "kiln"
GROUND = {"errors", "settings", "events", "__version__"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "events": set(),
    "settings": {"errors"},
    "oci": GROUND,
    "dockerfile": GROUND,
    "plan": GROUND | {"oci", "dockerfile"},
    "store": GROUND | {"oci"},
    "registry": GROUND | {"oci", "store"},
    "engine": GROUND | {"oci", "store", "dockerfile", "plan"},
    "sources": GROUND | {"oci", "store", "dockerfile", "plan", "engine.cancel"},
    "baking": GROUND | {"oci", "store", "dockerfile", "plan", "engine", "sources", "registry"},
    "bake": GROUND | {"oci", "store", "dockerfile", "plan", "engine", "sources", "registry", "baking"},
}


def _files() -> list[Path]:
    return sorted(
        path for path in ROOT.rglob("*.py") if path.parts[len(ROOT.parts)] not in ("cli", "__main__.py", "__init__.py")
    )


def _imports(path: Path) -> list[str]:
    """Dotted names below kiln that a file imports, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "kiln":
            inner = node.module.removeprefix("kiln").lstrip(".")
            found += [f"{inner}.{alias.name}".lstrip(".") for alias in node.names] if not inner else [inner]
            if inner and "." not in inner:
                found[-1:] = [f"{inner}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name.removeprefix("kiln.") for alias in node.names if alias.name.startswith("kiln.")]
    return found


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    allowed = ROOMS[room] | {room}
    for name in _imports(path):
        parts = name.split(".")
        assert parts[0] in allowed or ".".join(parts[:2]) in allowed, f"{room} may not import kiln.{name}"


def test_sandbox_is_a_leaf() -> None:
    assert _imports(ROOT / "engine" / "sandbox.py") == []


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_environment_is_read_in_settings_alone(path: Path) -> None:
    text = path.read_text()
    assert path.name == "settings.py" or not any(word in text for word in ("os.environ", "os.getenv", "environb"))


def test_every_room_is_in_the_table() -> None:
    names = {
        path.name.removesuffix(".py")
        for path in ROOT.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert names - {"cli", "__main__", "__init__"} == set(ROOMS)
