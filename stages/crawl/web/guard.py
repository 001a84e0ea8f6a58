"""Which addresses of the network may be asked. A crawler follows links that strangers wrote: none of them may lead inside.

Checked three times, each on its own enough for most attacks: the host as it is written, every address that a name
resolves to, and the address of the socket at the moment of connecting. The connection goes to the address that was
checked, so a name that resolves to something else a moment later (DNS rebinding) changes nothing. A proxy is told the
checked address (`proxy`).
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_FORBIDDEN = {
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"),
    "loopback": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "carrier-grade NAT": ("100.64.0.0/10",),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "unspecified": ("0.0.0.0/8", "::/128"),
    "reserved": ("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
                 "240.0.0.0/4", "2001:db8::/32", "2001:2::/48", "100::/64", "3fff::/20", "5f00::/16"),
    "IPv4 inside IPv6": ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
}  # fmt: skip
_NETWORKS = [(ipaddress.ip_network(network), name) for name, networks in _FORBIDDEN.items() for network in networks]


class ForbiddenAddress(Exception):
    """A host that is, or resolves to, an address inside; the message names both."""


def forbidden(address: Address) -> str | None:
    """Why an address is not of the public internet, in a word; None if it is (IANA special-purpose registries, 2024)."""
    for network, name in _NETWORKS:
        if address.version == network.version and address in network:
            return name
    return None if address.is_global else "not global"


class Guard:
    """What may be asked: public addresses, and the hosts in `allowed` (names with `*`, addresses, networks) whatever theirs.

    `fixed` maps host names (with `*`) to addresses that are taken for theirs without asking DNS.
    """

    def __init__(self, allowed: Sequence[str] = (), fixed: Mapping[str, str] | None = None) -> None:
        self.names, self.networks = [], []
        for entry in allowed:
            try:
                self.networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                self.names.append(entry.lower())
        self.fixed = {name.lower(): ipaddress.ip_address(address) for name, address in (fixed or {}).items()}
        self._opened: set[Address] = set()

    def is_own(self, host: str) -> bool:
        """Whether a host is one of those in `allowed`: a server of one's own, not somebody else's."""
        literal = _literal(host)
        named = any(fnmatchcase(host.lower(), pattern) for pattern in self.names)
        return named or (literal is not None and any(literal.version == net.version and literal in net for net in self.networks))

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
                raise ForbiddenAddress(f"{host} resolves to {address}, which is {forbidden(address)}")
            if forbidden(address):
                self._opened.add(address)

    def check_address(self, text: str) -> None:
        """Raise ForbiddenAddress for an address that is about to be connected to and was not found allowed before."""
        address = ipaddress.ip_address(text.split("%")[0])
        if forbidden(address) and address not in self._opened and not self._allows(str(address), address):
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
        if any(address.version == network.version and address in network for network in self.networks):
            return True
        return any(fnmatchcase(host.lower(), pattern) for pattern in self.names)


class GuardedResolver(AbstractResolver):
    """DNS through the system's resolver; what it answers is checked before anybody can connect to it."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        known = self.guard.known(host)
        if known is not None:
            kind = socket.AF_INET6 if ":" in known else socket.AF_INET
            found = [(kind, known)]
        else:
            loop = asyncio.get_running_loop()
            answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)
            found = list(dict.fromkeys((answer[0], str(answer[4][0])) for answer in answers))
        if not found:
            raise OSError(f"{host} has no address")
        self.guard.check(host, [address for _, address in found])
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=flags) for kind, address in found]

    async def close(self) -> None:
        return None


def _literal(host: str) -> Address | None:
    """The address that a host is written as: plain, or in the octal, hexadecimal and short forms that the C library reads."""
    bare = host.strip("[]")
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(bare))
    except (OSError, ValueError):
        return None
