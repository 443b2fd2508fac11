"""Makes a tree of many images for measuring: each with a folder of small files, some standing on others.

    python bench/tree.py FOLDER [--images 100] [--files 50] [--depth 6] [--base base] [--seed 1]

FOLDER gets `docker-bake.json` (and `src/<component>/build/*.dockerfile`, which is the same as a component tree), so that Kiln and
`docker buildx bake` read the same targets.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

_WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--base", default="base")
    parser.add_argument("--prefix", default="", help="what stands before image names: host:port/namespace/")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    make_tree(given.folder, given.images, given.files, given.depth, given.base, given.prefix, given.seed)


def make_tree(folder: Path, images: int, files: int, depth: int, base: str, prefix: str = "", seed: int = 1) -> None:
    """Writes the tree. Image number n is called `i<n>`; about one in six stands on the outside base, the others each on one
    earlier image, never deeper than `depth`. Names begin with `prefix`, or with the variable PREFIX where it has a value.
    `shared.json`, read after the other file, has each image carry its steps' results to other machines."""
    chance = random.Random(seed)
    depths: list[int] = []
    targets = {}
    for number in range(images):
        below = [other for other in range(number) if depths[other] < depth - 1]
        parent = chance.choice(below) if below and chance.random() > 1 / 6 else None
        depths.append(depths[parent] + 1 if parent is not None else 0)
        name = f"i{number}"
        _component(folder / "src" / name, name, base if parent is None else f"i{parent}", files, chance)
        targets[name] = {
            "context": f"src/{name}", "dockerfile": f"build/{name}.dockerfile", "tags": [f"${{PREFIX}}{name}:latest"],
            **({"contexts": {f"i{parent}": f"target:i{parent}"}} if parent is not None else {}),
        }  # fmt: skip
    variables = {"PREFIX": {"default": prefix}}
    document = {"variable": variables, "group": {"default": {"targets": list(targets)}}, "target": targets}
    (folder / "docker-bake.json").write_text(json.dumps(document, indent=1))
    shared = {name: _sharing(f"${{PREFIX}}{name}:latest") for name in targets}
    (folder / "shared.json").write_text(json.dumps({"target": shared}, indent=1))


def _sharing(name: str) -> dict[str, list[str]]:
    return {"cache-to": ["type=inline"], "cache-from": [f"type=registry,ref={name}"]}


def _component(folder: Path, name: str, base: str, files: int, chance: random.Random) -> None:
    (folder / "build").mkdir(parents=True, exist_ok=True)
    (folder / "build" / f"{name}.dockerfile").write_text(
        f"FROM {base}\nLABEL component={name}\nENV COMPONENT={name}\nWORKDIR /srv/{name}\nCOPY app app\nCOPY conf/ conf/\n"
        f'CMD ["cat", "/srv/{name}/app/f0.txt"]\n'
    )
    for number in range(files):
        path = folder / ("app" if number % 5 else "conf") / f"f{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        words = " ".join(chance.choice(_WORDS) for _ in range(chance.randrange(20, 400)))
        path.write_text(f"{name} {number} {words}\n")
    (folder / "app").mkdir(exist_ok=True)
    (folder / "app" / "f0.txt").write_text(f"{name}\n")


if __name__ == "__main__":
    main()
