"""redis-py's asyncio client, as the slow paths here (registry, writers, loader) use it."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import Redis
from redis.exceptions import RedisError

from feature_store.errors import FeatureStoreUnavailable
from feature_store.redis_address import parse_redis_url

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 30.0
"""For one round trip; a bulk load's are the longest."""


def open_redis(url: str) -> Redis:
    """Make a client for a Redis URL; it connects when first used. Raises ValueError for a URL that is none."""
    parse_redis_url(url)
    return Redis.from_url(url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=COMMAND_TIMEOUT_S)


@contextmanager
def told_as_unavailable(redis: Redis) -> Iterator[None]:
    """Turn redis-py's errors into FeatureStoreUnavailable, with the address and without the password."""
    try:
        yield
    except (RedisError, OSError) as error:
        at = redis.connection_pool.connection_kwargs
        address = f"unix://{at['path']}" if "path" in at else f"redis://{at.get('host')}:{at.get('port')}"
        raise FeatureStoreUnavailable(address, str(error) or type(error).__name__) from error
