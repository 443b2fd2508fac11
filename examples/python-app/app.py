"""Counts the words of a greeting and says who it runs as."""

import os
import pathlib
import sys

text = pathlib.Path(__file__).with_name("greeting.txt").read_text()
if "--check" in sys.argv:
    sys.exit(0 if text else 1)
print(f"{text.strip()} ({len(text.split())} words, user {os.getuid()}, port {os.environ['PORT']})")
