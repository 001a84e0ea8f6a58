"""How images are fetched from the web. None of it is a part of any version: it says how, not
what.
"""

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stages.stage import Params

_AGENT = "idcluster"


class Politeness(BaseModel):
    """Limits by host. A host is a name with its port."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float | None = Field(
        default=2.0,
        gt=0,
        description="requests a second to one host, of all workers together; null: no limit",
    )
    concurrency: int = Field(default=2, ge=1, description="requests at a time to one host")
    crawl_delay_limit: float = Field(
        default=60.0,
        gt=0,
        description="longest crawl-delay that is kept; who asks for more is left out",
    )
    failures: int = Field(
        default=10,
        ge=1,
        description="failures in a row after which a host is left alone for a minute; the third "
        "time, "
        "or after as many refusals (429, 503) in a row, for the rest of the run",
    )
    refusal_seconds: float = Field(
        default=1800.0,
        gt=0,
        description="seconds after which a host that answers nothing but 429 and "
        "503, or asks to be left alone for longer, is given up for the rest of the run",
    )


class WebParams(Params):
    """How images are fetched from the web."""

    model_config = ConfigDict(
        hide_input_in_errors=True
    )  # somebody may have written a password into `proxy`

    contact: str = Field(
        "",
        description="address or page of whoever is responsible; goes into the User-Agent of "
        "every request",
    )
    agent: str = Field(
        "",
        pattern=r"^[A-Za-z_-]*$",
        description="product token that robots.txt knows the crawler by (default: idcluster)",
    )
    max_bytes: int = Field(25_000_000, ge=1, description="bytes after which a body is not read on")
    connections: int = Field(
        64,
        ge=1,
        description="images that are fetched at a time, of one worker; fewer where it may open "
        "few files",
    )
    connect_seconds: float = Field(10.0, gt=0, description="longest wait for a connection")
    idle_seconds: float = Field(20.0, gt=0, description="longest silence of a server")
    total_seconds: float = Field(
        120.0,
        gt=0,
        le=600,
        description="longest time for one attempt at an address with its redirects, and for a "
        "site's rules",
    )
    longest_pause: float = Field(
        300.0,
        ge=0,
        description="seconds of a Retry-After that are waited for; a longer one ends the attempts",
    )
    attempts: int = Field(
        3, ge=1, description="requests after which a failure that may pass is taken as final"
    )
    redirects: int = Field(5, ge=0, description="redirects that are followed")
    respect_robots: bool = Field(True, description="keep to robots.txt")
    respect_opt_out: bool = Field(
        True, description="leave out what X-Robots-Tag, tdm-reservation or tdmrep.json reserve"
    )
    opt_out_days: float = Field(
        30.0, gt=0, description="days after which a refusal by the site is asked about again"
    )
    politeness: Politeness = Field(
        default_factory=Politeness, description="limits by host, of all workers together"
    )
    allow_hosts: tuple[str, ...] = Field(
        (),
        description="hosts, addresses or networks that may be private: tests, mirrors of one's own",
    )
    resolve: dict[str, str] = Field(
        {}, description="addresses of hosts, instead of DNS; names may hold *"
    )
    # fmt: off
    proxy: str | None = Field(
        None,
        description="http://host:port or socks5://host:port: a proxy that everything is asked "
                    "through; it is told addresses"
        " that were checked, never names. Its user and password are in IDCLUSTER_PROXY_USER and "
        "IDCLUSTER_PROXY_PASSWORD"
    )
    # fmt: on

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, value: str | None) -> str | None:
        # The messages leave the value out: it may hold a password.
        if value is None:
            return None
        if "@" in value:
            raise ValueError(
                "holds a user or a password, which records of runs would show: put them into the "
                "variables"
                " IDCLUSTER_PROXY_USER and IDCLUSTER_PROXY_PASSWORD"
            )
        wrong = ValueError(
            "is no address of a proxy: http://host:port or socks5://host:port (not socks5h: "
            "names are resolved here)"
        )
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise wrong from None
        if parts.scheme not in ("http", "socks5") or not parts.hostname or not port:
            raise wrong
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise wrong
        return value

    @property
    def product(self) -> str:
        return self.agent or _AGENT

    @property
    def user_agent(self) -> str:
        return f"{self.product}/0.1 (+{self.contact})" if self.contact else f"{self.product}/0.1"


FETCH = WebParams.model_validate({})
"""What holds where a DAG says nothing."""
