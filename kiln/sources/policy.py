"""Which addresses a URL that somebody else wrote may lead to."""

from __future__ import annotations

import ipaddress

from msgspec import Struct

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_V4, _V6 = ipaddress.IPv4Network, ipaddress.IPv6Network
# Where clouds keep credentials: link-local, and the single addresses of AWS, Google, Alibaba, Oracle and Azure.
_METADATA4 = tuple(_V4(n) for n in ("169.254.0.0/16", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32"))
_METADATA6 = tuple(_V6(n) for n in ("fe80::/10", "fd00:ec2::254/128", "fd20:ce::254/128"))
# IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890); of IPv6 only 2000::/3 is given to anyone.
_SPECIAL4 = tuple(
    _V4(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_GLOBAL6 = _V6("2000::/3")
_SPECIAL6 = tuple(_V6(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_NAT64, _TRANSLATED = _V6("64:ff9b::/96"), _V6("64:ff9b:1::/48")
_MAPPED, _COMPATIBLE, _SIX_TO_FOUR = _V6("::ffff:0:0/96"), _V6("::/96"), _V6("2002::/16")
_SIIT = _V6("::ffff:0:0:0/96")


class Policy(Struct, frozen=True):
    """Which addresses may be reached. `private` allows all but link-local and metadata addresses, else only those of the
    public internet; `netrc` allows to send the password that ~/.netrc has for a host."""

    private: bool = False
    netrc: bool = False

    def fault(self, address: Address) -> str:
        """What speaks against an address, empty if nothing does; addresses of IPv4 in those of IPv6 are looked at too."""
        inner = embedded(address)
        if inner is not None and (why := self.fault(inner)):
            return why
        if any(address in network for network in (_METADATA4 if address.version == 4 else _METADATA6)):
            return "a link-local or metadata address"
        if self.private or not _is_special(address, inner):
            return ""
        return "no address of the public internet"


def _is_special(address: Address, inner: Address | None) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return any(address in network for network in _SPECIAL4)
    if inner is not None and (address in _NAT64 or address in _MAPPED):
        return False
    return address not in _GLOBAL6 or any(address in network for network in _SPECIAL6)


def embedded(address: Address) -> Address | None:
    """The IPv4 address in an IPv6 one (mapped, compatible, translated, 6to4, NAT64), or None."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    number = int(address)
    if address in _SIX_TO_FOUR:
        return ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF)
    if any(address in network for network in (_MAPPED, _COMPATIBLE, _SIIT, _NAT64, _TRANSLATED)):
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    return None
