"""The guard: nothing that a stranger wrote may lead inside."""

import asyncio
import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.crawl.web.guard import ForbiddenAddress, Guard, GuardedResolver, forbidden

# fmt: off
INSIDE = [
    "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.255.255.254",
    "169.254.169.254", "100.64.0.1",
    "0.0.0.0", "0.1.2.3", "224.0.0.1",  # noqa: S104
    "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.0.8", "192.0.2.1", "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1", "::1", "::", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1",
    "::ffff:10.0.0.1", "::ffff:8.8.8.8",
    "64:ff9b::a00:1", "64:ff9b:1::1", "2002:a00:1::1", "2001:0:1::1", "2001:db8::1", "::7f00:1",
    "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:127.0.0.1",
    "4000::1", "1::1", "e000::1", "1fff:ffff::1", "::1:0:0:1", "100::1", "5f00::1", "2001:20::1",
    "2001:1ff::1", "3ffe::1", "3fff:fff::1",
]
# fmt: on
OUTSIDE = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2620:fe::fe",
]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_forbidden(address: str) -> None:
    assert forbidden(ipaddress.ip_address(address))
    with pytest.raises(ForbiddenAddress):
        Guard().check("innocent.example", [address])
    with pytest.raises(ForbiddenAddress):
        Guard().check_host(f"[{address}]" if ":" in address else address)


@given(st.ip_addresses(v=6))
def test_of_ipv6_only_global_unicast_is_outside(address: ipaddress.IPv6Address) -> None:
    assert forbidden(address) or ipaddress.IPv6Address("2000::") <= address < ipaddress.IPv6Address(
        "4000::"
    )


@given(
    st.ip_addresses(v=4),
    st.sampled_from(
        ["::ffff:0:0", "::ffff:0:0:0", "::", "64:ff9b::", "64:ff9b:1::", "2a00:1450::5efe:0:0"]
    ),
)
def test_no_wrapping_of_an_ipv4_address_passes(inner: ipaddress.IPv4Address, prefix: str) -> None:
    wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(inner))
    assert forbidden(wrapped)
    assert forbidden(ipaddress.IPv6Address(0x2002 << 112 | int(inner) << 80 | 1))


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_of_the_internet_are_not(address: str) -> None:
    assert forbidden(ipaddress.ip_address(address)) is None
    Guard().check("example.com", [address])
    Guard().check_host(address)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "0x7f.1",
        "0",
        "3232235777",
    ],
)
def test_numbers_that_the_c_library_reads_as_addresses_are_no_way_around(host: str) -> None:
    with pytest.raises(ForbiddenAddress):
        Guard().check_host(host)


def test_one_address_inside_among_many_forbids_the_name() -> None:
    with pytest.raises(
        ForbiddenAddress, match=r"two\.example resolves to 10\.0\.0\.1, which is private"
    ):
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
