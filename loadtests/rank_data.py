"""The ranking load's data: for each of some users, the items that are scored for them."""

from typing import Any

import numpy as np

RANK_MODEL, RANK_VERSION = "rank", "1"
ITEM_VIEW = "item_profile"
ITEMS = 5_000
ITEM_FEATURES = 10
RANK_USERS = 20
RANK_ITEMS = 500
"""Items that are scored for one user."""

_SEED = 20_260_202


def item_features() -> np.ndarray[Any, np.dtype[np.float32]]:
    """(ITEMS, ITEM_FEATURES) float32, the same on every machine."""
    return np.random.default_rng(_SEED).normal(size=(ITEMS, ITEM_FEATURES)).astype(np.float32)


def ranked_items() -> np.ndarray[Any, np.dtype[np.int64]]:
    """(RANK_USERS, RANK_ITEMS) indices of items, each user's distinct; the users are the first RANK_USERS."""
    rng = np.random.default_rng(_SEED + 1)
    return np.stack([rng.permutation(ITEMS)[:RANK_ITEMS] for _ in range(RANK_USERS)])
