"""Tables of contents on disk."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiln.errors import CorruptError
from kiln.store import toc
from kiln.store.entry import Entry

TEXT = st.one_of(st.text(st.characters(exclude_categories=("Cs",)), max_size=20), st.just("raw\udcff\udc80"))
ENTRIES = st.builds(
    Entry, kind=TEXT, mode=st.integers(-1, 0o7777), uid=st.integers(0, 2**32), gid=st.integers(0, 2**32), size=st.integers(0, 2**40),
    mtime=st.integers(-(2**40), 2**40), link=TEXT, digest=st.just("ab" * 32), offset=st.integers(-1, 2**40),
    major=st.integers(0, 2**20), minor=st.integers(0, 2**20), opaque=st.booleans(),
    xattrs=st.one_of(st.none(), st.dictionaries(TEXT, st.binary(), min_size=1, max_size=2)),
    sparse=st.one_of(st.none(), st.just(((0, 5), (9, 1)))),
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(TEXT, ENTRIES), max_size=4))
def test_round_trip(entries: toc.Toc) -> None:
    entries = [(path, entry) for path, entry in entries if "\udcff" not in entry.kind]
    assert toc.decode(toc.Table(entries).encode(), "here") == entries


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=100))
def test_damaged(data: bytes) -> None:
    with pytest.raises(CorruptError, match="damaged") as error:
        toc.decode(data, "/store/toc/x")
    assert error.value.where == "/store/toc/x"
