"""Chooses the connection that a Redis URL asks for."""

from feature_store.redis_address import RedisAddress, SentinelAddress, parse_redis_url
from feature_store.redis_cluster import ClusterConnection
from feature_store.redis_connection import FixedServer, RedisConnection
from feature_store.redis_sentinel import SentinelMaster


def open_connection(url: str) -> RedisConnection | ClusterConnection:
    """Make the connection for a Redis URL, by its scheme; it connects when started. Raises ValueError for a wrong URL.

    Every connection reads rows by `read(keys, on_rows)`, and keeps itself up.
    """
    address = parse_redis_url(url)
    if isinstance(address, RedisAddress):
        return RedisConnection(FixedServer(address))
    if isinstance(address, SentinelAddress):
        return RedisConnection(SentinelMaster(address))
    return ClusterConnection(address)
