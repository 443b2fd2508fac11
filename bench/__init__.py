"""The benchmark: Kiln beside its peers on the same work, in turn, and the limit that the bytes themselves set.

`python -m bench` measures, `python -m bench.growth` shows how Kiln's time and memory grow, `python -m bench.report` puts
the results into a document, `python -m bench.room FOLDER` makes the root folder of the newest peer.
"""
