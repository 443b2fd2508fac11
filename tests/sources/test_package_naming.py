"""What images of packages may be called, and which part is blamed."""

from __future__ import annotations

import pytest

from kiln.errors import UsageError
from kiln.sources.package.naming import image_name

GOOD = [
    (("shop", "1.4.2"), "shop:1.4.2"),
    (("shop", "1", "team/web"), "team/web/shop:1"),
    (("shop", "1", "team", "127.0.0.1:5000"), "127.0.0.1:5000/team/shop:1"),
    (("shop", "v1", "library.x", "https://registry.example/"), "registry.example/library.x/shop:v1"),
    (("shop", "v1", "", "registry.example/mirror"), "registry.example/mirror/shop:v1"),
    (("my_shop-2", "1", "/team/", "localhost"), "localhost/team/my_shop-2:1"),
    (("shop", "1", "", "[::1]:5000"), "[::1]:5000/shop:1"),
]
BAD = [
    (("shop_", "1"), "--app 'shop_': 'shop_' is not a repository name"),
    (("a___b", "1"), "--app 'a___b'"),
    (("Shop", "1"), "lower case only"),
    (("1shop", "1"), "begins with a letter"),
    (("shop", "v1:2"), "--version 'v1:2' is not a tag"),
    (("shop", "1\n"), "is not a tag"),
    (("shop", "1", "Team"), "--namespace 'Team'"),
    (("shop", "1", "library.x"), "would be taken for the host"),
    (("shop", "1", "localhost"), "would be taken for the host"),
    (("shop", "1", "reg.io:5000"), "is not a repository name"),
    (("shop", "1", "a//b"), "--namespace 'a//b': '' is not"),
    (("shop", "1", "team", "reg"), "a word alone"),
    (("shop", "1", "", "reg:0"), "is not a port"),
    (("shop", "1", "", "reg:99999"), "is not a port"),
    (("shop", "1", "", "reg:"), "is not a port"),
    (("shop", "1", "", "bad host:1"), "is not a host"),
    (("shop", "1", "", "reg.io/Mirror"), "--registry 'reg.io/Mirror'"),
]


@pytest.mark.parametrize(("parts", "name"), GOOD)
def test_names(parts, name):
    assert image_name(*parts).familiar == name


@pytest.mark.parametrize(("parts", "said"), BAD)
def test_the_part_that_cannot_be_is_named(parts, said):
    with pytest.raises(UsageError) as refused:
        image_name(*parts)
    assert said in str(refused.value) and "library/" not in str(refused.value)
