"""A `redis://`, `rediss://` or `unix://` URL taken apart."""

import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

DATABASE_MAX = 65_535
_OPTIONS = {"db", "ssl_ca_certs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where Redis listens and how to log in. `str()` gives it without the password, for logs and errors."""

    host: str = ""
    port: int = 6379
    path: str = ""
    """The Unix socket; empty for TCP."""
    tls: bool = False
    ca_file: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"redis{'s' * self.tls}://{self.host}:{self.port}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """Make the TLS context, with certificates verified always. None without TLS. Raises OSError for `ca_file`."""
        return ssl.create_default_context(cafile=self.ca_file) if self.tls else None


def parse_redis_url(url: str) -> RedisAddress:
    """Take a URL apart: `redis[s]://[[user]:password@]host[:port][/db]`, `unix://[…@]/path/to.sock[?db=0]`.

    `?ssl_ca_certs=FILE` trusts a private certificate authority. Raises ValueError that says what is wrong, and never
    repeats the password.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError(f"a Redis URL begins with redis://, rediss:// or unix://, not {parts.scheme or url[:16]!r}")
    options = parse_qs(parts.query)
    for name in options.keys() - _OPTIONS:
        raise ValueError(f"unknown option {name!r} in the Redis URL; known: {', '.join(sorted(_OPTIONS))}")
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    database = options.get("db", [""])[0]
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("a unix:// Redis URL needs the socket's path: unix:///run/redis.sock")
        return RedisAddress(
            path=unquote(parts.path), username=username, password=password, database=_database(database)
        )
    try:
        port = parts.port or 6379
    except ValueError as error:
        raise ValueError("the port in the Redis URL is not a number from 1 to 65535") from error
    return RedisAddress(
        host=parts.hostname or "localhost",
        port=port,
        tls=parts.scheme == "rediss",
        ca_file=options.get("ssl_ca_certs", [None])[0],
        username=username,
        password=password,
        database=_database(database or parts.path.strip("/")),
    )


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= DATABASE_MAX):
        raise ValueError(f"the database in the Redis URL is {text!r}, not a number from 0 to {DATABASE_MAX}")
    return int(text)
