"""A Redis URL taken apart: one server, a master that sentinels name, or a cluster."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

DATABASE_MAX = 65_535
SERVERS_MAX = 100
"""Servers that one URL may name."""

SENTINEL_PORT = 26_379
REDIS_PORT = 6_379
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")

_TLS_OPTIONS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of a TLS client: whom to trust (None: the system's authorities), and its own certificate, if any."""

    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where one server listens and how to log in. `str()` gives it without the password, for logs and errors."""

    host: str = ""
    port: int = REDIS_PORT
    path: str = ""
    """The Unix socket; empty for TCP."""
    tls: TlsFiles | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return f"redis{'s' * (self.tls is not None)}://{endpoint(self.host, self.port)}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """Make the TLS context, with certificates and host names verified always. None without TLS.

        Raises OSError (ssl.SSLError is one) for files that cannot be read or used.
        """
        if self.tls is None:
            return None
        context = ssl.create_default_context(cafile=self.tls.ca_file)
        if self.tls.certificate_file is not None:
            context.load_cert_chain(self.tls.certificate_file, self.tls.key_file)
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class SentinelAddress:
    """Sentinels to ask where the master called `master_name` is; with that filled in, `login` is its address."""

    sentinels: tuple[RedisAddress, ...]
    master_name: str
    login: RedisAddress

    def __str__(self) -> str:
        return f"redis{'s' * (self.login.tls is not None)}+sentinel://{_listed(self.sentinels)}/{self.master_name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAddress:
    """Nodes of a Redis Cluster to learn the others from. All nodes take the same login."""

    nodes: tuple[RedisAddress, ...]

    def __str__(self) -> str:
        return f"redis{'s' * (self.nodes[0].tls is not None)}+cluster://{_listed(self.nodes)}"


def parse_redis_url(url: str) -> RedisAddress | SentinelAddress | ClusterAddress:
    """Take a URL apart; docs/redis.md has its forms.

    Raises ValueError that says what is wrong, and never repeats the password.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"the Redis URL cannot be taken apart: {error}") from error
    scheme, _plus, kind = parts.scheme.partition("+")
    if parts.scheme not in SCHEMES:
        shown = repr(parts.scheme) if "://" in url else "a text without any scheme"
        raise ValueError(f"a Redis URL begins with {', '.join(f'{s}://' for s in SCHEMES)}; not with {shown}")
    if parts.fragment or (scheme != "unix" and "@" in parts.path + parts.query):
        raise ValueError("in the Redis URL, write a /, ?, # or @ of the user name or password as %2F, %3F, %23 or %40")
    options = _options(parts.query)
    _expect_options(options, parts.scheme)
    username, password = _credentials(parts)
    tls = _tls_files(options) if scheme == "rediss" else None
    if scheme == "unix":
        if not parts.path:
            raise ValueError("a unix:// Redis URL needs the socket's path: unix:///run/redis.sock")
        database = _database(options.get("db", ""))
        return RedisAddress(path=unquote(parts.path), username=username, password=password, database=database)
    if kind == "sentinel":
        return _sentinel_address(parts, options, tls, username, password)
    servers = _servers(parts, REDIS_PORT)
    database = _database(options.get("db", "") or parts.path.strip("/"))
    if kind == "cluster":
        if database:
            raise ValueError(f"the Redis URL names database {database}, and a Redis Cluster has only 0")
        nodes = [RedisAddress(host=h, port=p, tls=tls, username=username, password=password) for h, p in servers]
        return ClusterAddress(nodes=tuple(nodes))
    if len(servers) > 1:
        raise ValueError(
            f"the Redis URL names {len(servers)} servers: that needs redis+sentinel:// or redis+cluster://"
        )
    ((host, port),) = servers
    return RedisAddress(host=host, port=port, tls=tls, username=username, password=password, database=database)


def endpoint(host: str, port: int) -> str:
    """Write host and port as a URL does, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sentinel_address(
    parts: SplitResult, options: Mapping[str, str], tls: TlsFiles | None, username: str | None, password: str | None
) -> SentinelAddress:
    name, _slash, database = parts.path.strip("/").partition("/")
    if not name:
        raise ValueError("a sentinel's Redis URL names the master: redis+sentinel://host:26379/mymaster")
    sentinels = [
        RedisAddress(
            host=host,
            port=port,
            tls=tls,
            username=options.get("sentinel_username"),
            password=options.get("sentinel_password"),
        )
        for host, port in _servers(parts, SENTINEL_PORT)
    ]
    number = _database(options.get("db", "") or database)
    login = RedisAddress(tls=tls, username=username, password=password, database=number)
    return SentinelAddress(sentinels=tuple(sentinels), master_name=unquote(name), login=login)


def _options(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=16))
    except ValueError as error:
        raise ValueError("the Redis URL has too many options") from error


def _expect_options(options: Mapping[str, str], scheme: str) -> None:
    known = {"db"} if "cluster" not in scheme else set()
    if scheme.startswith("rediss"):
        known |= _TLS_OPTIONS
    if scheme.endswith("sentinel"):
        known |= _SENTINEL_OPTIONS
    for name, value in options.items():
        if name in _TLS_OPTIONS and name not in known:
            raise ValueError(f"the option {name} of the Redis URL needs TLS: rediss:// instead of redis://")
        if name not in known:
            shown = ", ".join(sorted(known)) or "none"
            raise ValueError(f"unknown option {name!r} in the Redis URL; known with {scheme}://: {shown}")
        if not value:
            raise ValueError(f"the option {name} of the Redis URL is empty")


def _tls_files(options: Mapping[str, str]) -> TlsFiles:
    files = TlsFiles(
        ca_file=options.get("ssl_ca_certs"),
        certificate_file=options.get("ssl_certfile"),
        key_file=options.get("ssl_keyfile"),
    )
    if files.key_file is not None and files.certificate_file is None:
        raise ValueError("the Redis URL has ssl_keyfile without ssl_certfile")
    return files


def _credentials(parts: SplitResult) -> tuple[str | None, str | None]:
    login, _at, _hosts = parts.netloc.rpartition("@")
    username, _colon, password = login.partition(":")
    if username and not password:
        raise ValueError("the Redis URL has a user and no password: write user:password@, or :password@ without a user")
    return unquote(username) or None, unquote(password) or None


def _servers(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    listed = parts.netloc.rpartition("@")[2].split(",")
    if len(listed) > SERVERS_MAX:
        raise ValueError(f"the Redis URL names {len(listed)} servers; at most {SERVERS_MAX} are taken")
    return [_server(text, default_port, only=len(listed) == 1) for text in listed]


def _server(text: str, default_port: int, *, only: bool) -> tuple[str, int]:
    if not text and not only:
        raise ValueError("the Redis URL has an empty place in its list of servers")
    try:
        one = urlsplit(f"//{text}")
        host, port = one.hostname or "localhost", default_port if one.port is None else one.port
    except ValueError as error:
        raise ValueError("the port in the Redis URL is not a number from 1 to 65535") from error
    if not port:
        raise ValueError("the port in the Redis URL is not a number from 1 to 65535")
    return host, port


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= DATABASE_MAX):
        raise ValueError(f"the database in the Redis URL is {text!r}, not a number from 0 to {DATABASE_MAX}")
    return int(text)


def _listed(servers: tuple[RedisAddress, ...]) -> str:
    return ",".join(endpoint(server.host, server.port) for server in servers)
