import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiln.errors import CorruptError
from kiln.oci.digest import sha256
from kiln.registry.verify import checked, digest_like, skip


@given(st.lists(st.binary()), st.integers(0, 100))
def test_skip(chunks, offset):
    assert b"".join(skip(chunks, offset)) == b"".join(chunks)[offset:]


@given(st.lists(st.binary(min_size=1)))
def test_checked_hands_out_the_same(chunks):
    assert list(checked(chunks, sha256(b"".join(chunks)))) == chunks


@given(st.lists(st.binary(min_size=1), min_size=1))
def test_checked_keeps_the_last_chunk_of_wrong_bytes(chunks):
    handed = []
    with pytest.raises(CorruptError):
        handed.extend(checked(chunks, sha256(b"".join(chunks) + b"x")))
    assert len(handed) < len(chunks)


def test_digest_like():
    assert digest_like("", b"x") == sha256(b"x")
    assert digest_like("sha512:" + "0" * 128, b"x") == "sha512:" + hashlib.sha512(b"x").hexdigest()
