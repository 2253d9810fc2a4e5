"""redis-py's asyncio client, as the slow paths here (registry, writers, loader) use it, for every kind of Redis."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from redis import exceptions as redis_errors
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialWithJitterBackoff

from feature_store.errors import FeatureStoreUnavailable
from feature_store.redis_address import ClusterAddress, RedisAddress, SentinelAddress, endpoint, parse_redis_url
from feature_store.redis_replies import advised
from feature_store.redis_sentinel import SENTINEL_TIMEOUT_S

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 30.0
"""For one round trip; a bulk load's are the longest."""

RETRIES_MAX = 3
RETRY_DELAY_MIN_S = 0.1
RETRY_DELAY_MAX_S = 1.0
"""Of a command that found no connection. A person waits at the other end, or a program that asks again by itself."""

RedisClient = Redis | RedisCluster

# redis-py takes the code away from the replies that it has a class for. More special classes come first.
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (redis_errors.OutOfMemoryError, "OOM"),
    (redis_errors.BusyLoadingError, "LOADING"),
    (redis_errors.ReadOnlyError, "READONLY"),
    (redis_errors.NoPermissionError, "NOPERM"),
    (redis_errors.MasterDownError, "MASTERDOWN"),
    (redis_errors.ClusterDownError, "CLUSTERDOWN"),
    (redis_errors.ClusterCrossSlotError, "CROSSSLOT"),
    (redis_errors.MovedError, "MOVED"),
)


def open_redis(url: str) -> RedisClient:
    """Make a client for a Redis URL; it connects when first used. Raises ValueError for a URL that is none.

    With sentinels it is a client of the master, which it looks for at each new connection.
    """
    address = parse_redis_url(url)
    if isinstance(address, ClusterAddress):
        seeds = [ClusterNode(node.host, node.port) for node in address.nodes]
        # A part of the cluster that is down leaves the others' rows where they are.
        return _ClusterClient(startup_nodes=seeds, require_full_coverage=False, **_login(address.nodes[0]))
    if isinstance(address, SentinelAddress):
        return _master_client(address)
    if address.path:
        return Redis(unix_socket_path=address.path, db=address.database, **_login(address))
    return Redis(host=address.host, port=address.port, db=address.database, **_login(address))


@contextmanager
def told_as_unavailable(redis: RedisClient) -> Iterator[None]:
    """Turn redis-py's errors into FeatureStoreUnavailable, with the address and without the password."""
    try:
        yield
    except (redis_errors.RedisError, redis_errors.RedisClusterException, OSError) as error:
        raise FeatureStoreUnavailable(_address(redis), _reason(error)) from error


async def get_rows(redis: RedisClient, keys: Sequence[bytes]) -> list[bytes | None]:
    """Read rows, in the order of the keys, wherever in a cluster they are."""
    pipeline = redis.pipeline(transaction=False)
    for key in keys:
        pipeline.execute_command("GET", key)
    rows: list[bytes | None] = await pipeline.execute()
    return rows


async def scan_keys(redis: RedisClient, pattern: bytes, count: int) -> AsyncIterator[list[bytes]]:
    """Go through the keys that match, step by step; in a cluster one step at each master in turn."""
    targets: list[dict[str, Any]] = [{}]
    if isinstance(redis, RedisCluster):
        await redis.initialize()
        targets = [{"target_nodes": node} for node in redis.get_primaries()]
    cursors = [(target, 0) for target in targets]
    while cursors:
        left = []
        for target, cursor in cursors:
            # One node of a cluster answers with its cursor under its name.
            after, keys = await redis.execute_command("SCAN", cursor, "MATCH", pattern, "COUNT", count, **target)
            yield keys
            after = next(iter(after.values())) if isinstance(after, dict) else after
            if after != 0:
                left.append((target, after))
        cursors = left


class _ClusterClient(RedisCluster):
    """A client of a cluster, which says what is wrong already where it is entered: it looks at the nodes there."""

    async def __aenter__(self) -> Self:
        with told_as_unavailable(self):
            await super().__aenter__()
        return self


class _MasterClient(Redis):
    """A client of the master, which closes its sentinels' connections with its own."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        for sentinel in self.connection_pool.sentinel_manager.sentinels:  # type: ignore[attr-defined]  # its pool is one of sentinels
            await sentinel.aclose()


def _master_client(address: SentinelAddress) -> Redis:
    asked = _login(address.sentinels[0]) | {"socket_timeout": SENTINEL_TIMEOUT_S}
    places = [(sentinel.host, sentinel.port) for sentinel in address.sentinels]
    sentinel = Sentinel(places, sentinel_kwargs=asked | {"socket_connect_timeout": SENTINEL_TIMEOUT_S})  # type: ignore[no-untyped-call]
    login = _login(address.login)
    master: Redis = sentinel.master_for(address.master_name, _MasterClient, db=address.login.database, **login)
    return master


def _login(address: RedisAddress) -> dict[str, Any]:
    options: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": COMMAND_TIMEOUT_S,
        "retry": Retry(ExponentialWithJitterBackoff(cap=RETRY_DELAY_MAX_S, base=RETRY_DELAY_MIN_S), RETRIES_MAX),
    }
    if address.tls is not None:
        options |= {
            "ssl": True,
            "ssl_ca_certs": address.tls.ca_file,
            "ssl_certfile": address.tls.certificate_file,
            "ssl_keyfile": address.tls.key_file,
            "ssl_check_hostname": True,
        }
    return options


def _address(redis: RedisClient) -> str:
    if isinstance(redis, RedisCluster):
        return f"redis+cluster://{','.join(redis.nodes_manager.startup_nodes)}"
    pool = redis.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        asked = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
        places = ",".join(endpoint(at["host"], at["port"]) for at in asked)
        return f"redis+sentinel://{places}/{pool.service_name}"
    at = pool.connection_kwargs
    return f"unix://{at['path']}" if "path" in at else f"redis://{endpoint(str(at.get('host')), at.get('port', 0))}"


def _reason(error: Exception) -> str:
    # Of a pipeline's error only what Redis said: redis-py puts the command before it, with the bytes of rows.
    packed = error.args and isinstance(error.args[0], tuple)  # as its cluster client does with some
    text = (
        str(error.args[0][0] if packed else error).rpartition("of pipeline caused error: ")[2] or type(error).__name__
    )
    code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
    if isinstance(error, redis_errors.AuthenticationError):
        code = "WRONGPASS" if "invalid" in text else "NOAUTH"
    return advised(text if code is None or text.startswith(code) else f"{code} {text}")
