"""The guard: nothing that a stranger wrote may lead inside."""

import asyncio
import ipaddress
import socket

import pytest

from stages.crawl.web.guard import ForbiddenAddress, Guard, GuardedResolver, forbidden

INSIDE = [
    "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "100.64.0.1",
    "0.0.0.0", "0.1.2.3", "224.0.0.1",  # noqa: S104
    "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "::1", "::", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8",
    "64:ff9b::a00:1", "64:ff9b:1::1", "2002:a00:1::1", "2001:0:1::1", "2001:db8::1", "::7f00:1",
]  # fmt: skip
OUTSIDE = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_forbidden(address: str) -> None:
    assert forbidden(ipaddress.ip_address(address))
    with pytest.raises(ForbiddenAddress):
        Guard().check("innocent.example", [address])
    with pytest.raises(ForbiddenAddress):
        Guard().check_host(f"[{address}]" if ":" in address else address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_of_the_internet_are_not(address: str) -> None:
    assert forbidden(ipaddress.ip_address(address)) is None
    Guard().check("example.com", [address])
    Guard().check_host(address)


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "0x7f.1", "0", "3232235777"]
)
def test_numbers_that_the_c_library_reads_as_addresses_are_no_way_around(host: str) -> None:
    with pytest.raises(ForbiddenAddress):
        Guard().check_host(host)


def test_one_address_inside_among_many_forbids_the_name() -> None:
    with pytest.raises(ForbiddenAddress, match=r"two\.example resolves to 10\.0\.0\.1, which is private"):
        Guard().check("two.example", ["8.8.8.8", "10.0.0.1"])


def test_the_socket_is_checked_whatever_was_checked_before() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("169.254.169.254", 80))
    with pytest.raises(ForbiddenAddress):
        Guard().socket(info)
    Guard().socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 80))).close()


def test_an_allowed_host_opens_its_own_address_and_no_other_name() -> None:
    guard = Guard(allowed=["*.test", "10.1.0.0/16"])
    guard.check("a.test", ["127.0.0.1"])
    guard.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))).close()
    with pytest.raises(ForbiddenAddress):
        guard.check("evil.example", ["127.0.0.1"])
    with pytest.raises(ForbiddenAddress):
        guard.check_host("127.0.0.1")
    guard.check("mirror.example", ["10.1.2.3"])
    assert guard.is_own("a.test")
    assert guard.is_own("10.1.2.3")
    assert not guard.is_own("example.com")


def test_names_are_resolved_and_checked() -> None:
    async def resolve(guard: Guard, host: str) -> list[str]:
        return [answer["host"] for answer in await GuardedResolver(guard).resolve(host, 80)]

    with pytest.raises(ForbiddenAddress):
        asyncio.run(resolve(Guard(), "localhost"))
    assert asyncio.run(resolve(Guard(["localhost"]), "localhost"))
    fixed = Guard(["*.test"], {"*.test": "127.0.0.1", "public.example": "8.8.8.8"})
    assert asyncio.run(resolve(fixed, "a.test")) == ["127.0.0.1"]
    assert asyncio.run(resolve(fixed, "public.example")) == ["8.8.8.8"]
    with pytest.raises(ForbiddenAddress):
        asyncio.run(resolve(Guard(fixed={"evil.example": "127.0.0.1"}), "evil.example"))
