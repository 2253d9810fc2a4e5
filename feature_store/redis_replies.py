"""What Redis's error replies mean, and what to do about them."""

import re

_ADVICE = {
    "LOADING": "it serves again by itself",
    "READONLY": "this is a replica, which takes no writes: name the master, or let sentinels do so (redis+sentinel://)",
    "OOM": "Redis is full: raise its maxmemory, or make room",
    "MISCONF": "Redis refuses writes while it cannot save to its disk: see its log",
    "MOVED": "this server is a node of a Redis Cluster: use redis+cluster://",
    "ASK": "this server is a node of a Redis Cluster: use redis+cluster://",
    "CROSSSLOT": "this server is a node of a Redis Cluster: use redis+cluster://",
    "CLUSTERDOWN": "a part of the cluster has no master",
    "MASTERDOWN": "this is a replica that has lost its master",
    "NOAUTH": "give a password in the Redis URL: redis://user:password@host or redis://:password@host",
    "WRONGPASS": "the user name or password in the Redis URL is wrong",
    "NOPERM": "this user needs more rights: docs/redis.md lists them",
}

_NO_CLUSTER = "cluster support disabled"

_LOGIN_CODES = frozenset({"NOAUTH", "WRONGPASS", "NOPERM"})

_WITHOUT_CODE = (
    (re.compile("ERR invalid password"), "WRONGPASS"),  # from `requirepass` before Redis 6
    (re.compile("ERR .*AUTH.* without any password configured"), "WRONGPASS"),
    (re.compile(r"ERR .*-(OOM|READONLY|MISCONF) "), None),  # Redis 6 wraps what happens in a script
)


def reply_code(text: str) -> str:
    """The code that an error reply begins with or, where Redis wraps it, contains: `OOM`; else an empty string."""
    for pattern, code in _WITHOUT_CODE:
        if found := pattern.search(text):
            return code or found[1]
    first = text.partition(" ")[0]
    return first if first.isupper() and first.isalpha() else ""


def advised(text: str) -> str:
    """An error reply with, where there is any, what it means here."""
    advice = _ADVICE.get(reply_code(text))
    if _NO_CLUSTER in text:
        advice = "this server stands alone: use redis:// instead of redis+cluster://"
    return text if advice is None else f"{text.rstrip('.')} ({advice})"


def refuses_login(text: str) -> bool:
    """Whether a reply is about who asks, so that asking again soon does nothing but fill the server's log."""
    return reply_code(text) in _LOGIN_CODES
