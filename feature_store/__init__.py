"""Online features in Redis: declared, written, read.

The loader (`feature_store.row_loader`) is not among these names: it imports pyarrow, which a gateway has no use for.
"""

from feature_store.embedded_redis import EmbeddedRedis, RedisDidNotStart, RedisServerNotFound, find_redis_server
from feature_store.errors import (
    CorruptRegistry,
    CorruptRow,
    FeatureStoreError,
    FeatureStoreUnavailable,
    IncompatibleDatatype,
    InvalidEntityId,
    NoDefault,
    PartlyUnread,
    RowTooLarge,
    UnknownFeature,
    UnknownView,
    WrongFeatureValue,
)
from feature_store.feature_status import FeatureStatus
from feature_store.feature_value import pack_value
from feature_store.feature_views import FeatureView, read_feature_views
from feature_store.near_cache import NearCache
from feature_store.online_reader import OnlineReader
from feature_store.projection import ProjectedRow, Projection, Wanted
from feature_store.redis_client import RedisClient, open_redis, told_as_unavailable
from feature_store.redis_connection import RedisConnection
from feature_store.redis_topologies import open_connection
from feature_store.registered_view import NearCachePolicy, RegisteredView
from feature_store.registry import apply_views, read_views
from feature_store.row_keys import entity_id_bytes, row_key, row_key_prefix
from feature_store.row_writer import RowWriter
from feature_store.schema_evolution import IncompatibleViews, ViewChange
from feature_store.views_snapshot import decode_views, encode_views

__all__ = [
    "CorruptRegistry",
    "CorruptRow",
    "EmbeddedRedis",
    "FeatureStatus",
    "FeatureStoreError",
    "FeatureStoreUnavailable",
    "FeatureView",
    "IncompatibleDatatype",
    "IncompatibleViews",
    "InvalidEntityId",
    "NearCache",
    "NearCachePolicy",
    "NoDefault",
    "OnlineReader",
    "PartlyUnread",
    "ProjectedRow",
    "Projection",
    "RedisClient",
    "RedisConnection",
    "RedisDidNotStart",
    "RedisServerNotFound",
    "RegisteredView",
    "RowTooLarge",
    "RowWriter",
    "UnknownFeature",
    "UnknownView",
    "ViewChange",
    "Wanted",
    "WrongFeatureValue",
    "apply_views",
    "decode_views",
    "encode_views",
    "entity_id_bytes",
    "find_redis_server",
    "open_connection",
    "open_redis",
    "pack_value",
    "read_feature_views",
    "read_views",
    "row_key",
    "row_key_prefix",
    "told_as_unavailable",
]
