"""Which addresses of the network may be asked. A crawler follows links that strangers wrote: none
of them may lead inside.

Checked three times, each on its own enough for most attacks: the host as it is written, every
address that a name resolves to, and the address of the socket at the moment of connecting. The
connection goes to the address that was checked, so a name that resolves to something else a moment
later (DNS rebinding) changes nothing. A proxy is told the checked address (`proxy`).
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# fmt: off
_FORBIDDEN_4 = {
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    "loopback": ("127.0.0.0/8",),
    "link-local": ("169.254.0.0/16",),
    "carrier-grade NAT": ("100.64.0.0/10",),
    "multicast": ("224.0.0.0/4",),
    "unspecified": ("0.0.0.0/8",),
    "reserved": ("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24",
                 "240.0.0.0/4"),
}
# fmt: on
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
"""All that is given out for hosts that anybody may reach (RFC 4291, section 2.4). What is not in
here is inside, whatever it is.
"""
_FORBIDDEN_6 = {
    # Names of what lies outside of _GLOBAL_6 are only for the message.
    "private": ("fc00::/7", "fec0::/10"),
    "loopback": ("::1/128",),
    "link-local": ("fe80::/10",),
    "multicast": ("ff00::/8",),
    "unspecified": ("::/128",),
    "reserved": ("2001::/23", "2001:db8::/32", "3ffe::/16", "3fff::/20", "100::/64", "5f00::/16"),
}
# fmt: off
_WRAPPED = {
    # Where an IPv4 address lies in an IPv6 one, in bits from the right (RFC 4291, 2765, 6052, 8215,
    # 3056, 4380).
    "::ffff:0:0/96": 0, "::ffff:0:0:0/96": 0, "::/96": 0, "64:ff9b::/96": 0, "64:ff9b:1::/48": 0,
    "2002::/16": 80, "2001::/32": 0,
}
# fmt: on
_TEREDO = ipaddress.IPv6Network("2001::/32")
_ISATAP = (0x00005EFE, 0x02005EFE)
"""What stands before an IPv4 address in the lower half of an address (RFC 5214, section 6.1)."""


def _networks(
    named: Mapping[str, Sequence[str]],
) -> list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, str]]:
    return [
        (ipaddress.ip_network(network), name)
        for name, networks in named.items()
        for network in networks
    ]


_NETWORKS = {4: _networks(_FORBIDDEN_4), 6: _networks(_FORBIDDEN_6)}
_WRAPPING = [(ipaddress.IPv6Network(network), shift) for network, shift in _WRAPPED.items()]


_LOOKUPS = 32
"""Names that are looked up at a time."""


class ForbiddenAddress(Exception):
    """A host that is, or resolves to, an address inside; the message names both."""


def forbidden(address: Address) -> str | None:
    """Why an address is not of the public internet, in a word; None if it is (IANA special-purpose
    registries, 2024).

    An IPv6 address that wraps an IPv4 one is refused whatever it wraps: somebody on the way would
    unwrap it.
    """
    name = next((name for network, name in _NETWORKS[address.version] if address in network), None)
    if isinstance(address, ipaddress.IPv4Address):
        return name or (None if address.is_global else "not global")
    inner = _wrapped(address)
    if inner is not None and name not in ("loopback", "unspecified"):
        return f"IPv4 inside IPv6 ({inner}{f', {forbidden(inner)}' if forbidden(inner) else ''})"
    return name or (None if address in _GLOBAL_6 else "not global")


def _wrapped(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for: mapped, translated, or to be tunnelled to; None
    for a plain one.
    """
    number = int(address)
    for network, shift in _WRAPPING:
        if address in network:
            inner = (number >> shift) & 0xFFFFFFFF
            return ipaddress.IPv4Address(inner ^ 0xFFFFFFFF if network == _TEREDO else inner)
    if (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    return None


class Guard:
    """What may be asked: public addresses, and the hosts in `allowed` (names with `*`, addresses,
    networks) whatever theirs.

    `fixed` maps host names (with `*`) to addresses that are taken for theirs without asking DNS.
    """

    def __init__(self, allowed: Sequence[str] = (), fixed: Mapping[str, str] | None = None) -> None:
        self.names, self.networks = [], []
        for entry in allowed:
            try:
                self.networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                self.names.append(entry.lower())
        self.fixed = {
            name.lower(): ipaddress.ip_address(address) for name, address in (fixed or {}).items()
        }
        self._opened: set[Address] = set()

    def is_own(self, host: str) -> bool:
        """Whether a host is one of those in `allowed`: a server of one's own, not somebody
        else's.
        """
        literal = _literal(host)
        named = any(fnmatchcase(host.lower(), pattern) for pattern in self.names)
        return named or (
            literal is not None
            and any(literal.version == net.version and literal in net for net in self.networks)
        )

    def check_host(self, host: str) -> None:
        """Raise ForbiddenAddress for a host that is written as a forbidden address."""
        literal = _literal(host)
        if literal is not None and not self._allows(host, literal):
            raise ForbiddenAddress(f"{host} is {forbidden(literal)}")

    def check(self, host: str, addresses: Sequence[str]) -> None:
        """Raise ForbiddenAddress if any of the addresses that `host` resolves to is forbidden."""
        for text in addresses:
            address = ipaddress.ip_address(text.split("%")[0])
            if not self._allows(host, address):
                raise ForbiddenAddress(
                    f"{host} resolves to {address}, which is {forbidden(address)}"
                )
            if forbidden(address):
                self._opened.add(address)

    def check_address(self, text: str) -> None:
        """Raise ForbiddenAddress for an address that is about to be connected to and was not found
        allowed before.
        """
        address = ipaddress.ip_address(text.split("%")[0])
        if (
            forbidden(address)
            and address not in self._opened
            and not self._allows(str(address), address)
        ):
            raise ForbiddenAddress(f"{address} is {forbidden(address)}")

    def socket(self, info: Any) -> socket.socket:
        """The socket for an address that is about to be connected to. Raises ForbiddenAddress."""
        family, kind, protocol, _, where = info
        self.check_address(str(where[0]))
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made

    def known(self, host: str) -> str | None:
        """The address that stands for a host without asking DNS."""
        for pattern, address in self.fixed.items():
            if fnmatchcase(host.lower(), pattern):
                return str(address)
        return None

    def _allows(self, host: str, address: Address) -> bool:
        if forbidden(address) is None:
            return True
        if any(
            address.version == network.version and address in network for network in self.networks
        ):
            return True
        return any(fnmatchcase(host.lower(), pattern) for pattern in self.names)


class GuardedResolver(AbstractResolver):
    """DNS through the system's resolver; what it answers is checked before anybody can connect to
    it.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        # Threads of its own: a name server that does not answer holds up neither what else the
        # process does beside its event loop, nor soon all other names.
        self._threads = ThreadPoolExecutor(_LOOKUPS, "dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        known = self.guard.known(host)
        if known is not None:
            kind = socket.AF_INET6 if ":" in known else socket.AF_INET
            found = [(kind, known)]
        else:
            loop = asyncio.get_running_loop()
            ask = partial(
                socket.getaddrinfo,
                host,
                port,
                family,
                socket.SOCK_STREAM,
                flags=socket.AI_ADDRCONFIG,
            )
            answers = await loop.run_in_executor(self._threads, ask)
            found = list(dict.fromkeys((answer[0], str(answer[4][0])) for answer in answers))
        if not found:
            raise OSError(f"{host} has no address")
        self.guard.check(host, [address for _, address in found])
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=flags)
            for kind, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _literal(host: str) -> Address | None:
    """The address that a host is written as: plain, or in the octal, hexadecimal and short forms
    that the C library reads.
    """
    bare = host.strip("[]")
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(bare))
    except (OSError, ValueError):
        return None
