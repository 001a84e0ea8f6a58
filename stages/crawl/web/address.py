"""Web addresses in one spelling, so that an image that is linked in two ways is one candidate and
is fetched once.

Only what cannot change the meaning is changed (RFC 3986, section 6.2.2 and 6.2.3): case of scheme
and host, default port, fragment, characters that have to be escaped. Paths and queries stay as they
are: servers sign them.
"""

import ipaddress
import re
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import idna

_PORTS = {"http": 80, "https": 443}
# reserved and unreserved characters, and the per cent sign of what is escaped already
_SAFE = "!#$%&'()*+,/:;=?@[]~-._"
_BLANKS = re.compile(r"[\t\r\n]")
_CONTROL = re.compile(
    "[\x00-\x1f\x7f\ud800-\udfff]"
)  # and halves of characters, which no bytes stand for
_BYTES = re.compile("[\udc80-\udcff]")
_MOST = 8192
_MOST_HOST = 1024
"""Characters of a host's name; encoded it has 253 at most."""


class BadAddress(ValueError):
    """An address that is none of the web's; the message says why."""


def canonical(address: str) -> str:
    """The address in its one spelling. Raises BadAddress.

    Refused are other schemes than http and https, names and passwords in the address, and what has
    no host.
    """
    text = _BLANKS.sub("", address.strip())
    if len(text) > _MOST:
        raise BadAddress(f"longer than {_MOST} characters")
    if _CONTROL.search(text):
        raise BadAddress("control characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadAddress(str(error)) from error
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise BadAddress(
            f"scheme {scheme!r}; only http and https are fetched"
            if scheme
            else "no scheme: not http:// or https://"
        )
    if "@" in parts.netloc:
        raise BadAddress("a name or password in the address")
    host = _host(parts.hostname or "")
    where = host if port is None or port == _PORTS[scheme] else f"{host}:{port}"
    path = quote(parts.path.replace("\\", "/"), safe=_SAFE) or "/"
    return urlunsplit((scheme, where, path, quote(parts.query, safe=_SAFE), ""))


def host_of(address: str) -> str:
    """Host, and port where it is not the scheme's own: what limits are counted by."""
    return urlsplit(address).netloc


def origin_of(address: str) -> str:
    """Scheme, host and port: what robots.txt holds for."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def redirected(address: str, location: str) -> str:
    """Where a redirect from `address` leads. Raises BadAddress.

    Bytes that are no UTF-8 come as halves of characters (PEP 383) and are escaped, as browsers do.
    """
    try:
        return canonical(
            urljoin(
                address,
                _BYTES.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", location.strip()),
            )
        )
    except BadAddress:
        raise
    except ValueError as error:  # urljoin takes more for addresses than it can take apart
        raise BadAddress(str(error)) from error


def _host(name: str) -> str:
    if not name:
        raise BadAddress("no host")
    if len(name) > _MOST_HOST:
        raise BadAddress("a host name that is too long")
    try:
        literal = ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return f"[{literal.compressed}]" if literal.version == 6 else str(literal)
    try:
        ascii_name = (
            idna.encode(name.rstrip("."), uts46=True).decode()
            if not name.isascii()
            else name.rstrip(".").lower()
        )
    except (idna.IDNAError, UnicodeError) as error:
        raise BadAddress(f"host {name!r}: {error}") from error
    if (
        not re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", ascii_name)
        or ".." in ascii_name
        or len(ascii_name) > 253
    ):
        raise BadAddress(f"host {name!r} is no host name")
    return ascii_name
