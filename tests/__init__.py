"""The tests mirror the tree of `kiln/`."""
