"""Says every greeting that lies in the folder `texts`."""

import pathlib

for text in sorted(pathlib.Path(__file__).with_name("texts").iterdir()):
    print(f"{text.stem}: {text.read_text(encoding='utf-8').strip()}")
