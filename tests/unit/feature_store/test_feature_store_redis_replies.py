import pytest
from redis import exceptions as redis_errors

from feature_store.errors import FeatureStoreUnavailable
from feature_store.redis_client import open_redis, told_as_unavailable
from feature_store.redis_replies import advised, refuses_login, reply_code


@pytest.mark.parametrize(
    ("text", "code", "advice"),
    [
        ("LOADING Redis is loading the dataset in memory", "LOADING", "by itself"),
        ("READONLY You can't write against a read only replica.", "READONLY", "redis+sentinel://"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM", "raise its maxmemory"),
        ("ERR Error running script: @user_script:10: -OOM command not allowed", "OOM", "raise its maxmemory"),
        ("MISCONF Redis is configured to save RDB snapshots", "MISCONF", "its log"),
        ("MOVED 3999 127.0.0.1:6381", "MOVED", "use redis+cluster://"),
        ("CROSSSLOT Keys in request don't hash to the same slot", "CROSSSLOT", "use redis+cluster://"),
        ("CLUSTERDOWN Hash slot not served", "CLUSTERDOWN", "no master"),
        ("MASTERDOWN Link with MASTER is down", "MASTERDOWN", "lost its master"),
        ("NOAUTH Authentication required.", "NOAUTH", "give a password"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "WRONGPASS", "is wrong"),
        ("ERR invalid password", "WRONGPASS", "is wrong"),
        ("ERR AUTH <password> called without any password configured for the default user.", "WRONGPASS", "is wrong"),
        ("NOPERM this user has no permissions to run the 'mget' command", "NOPERM", "more rights"),
        ("ERR This instance has cluster support disabled", "ERR", "use redis:// instead"),
    ],
)
def test_an_error_reply_is_told_with_what_it_means(text, code, advice):
    assert reply_code(text) == code
    assert advised(text).startswith(text.rstrip("."))
    assert advice in advised(text)


@pytest.mark.parametrize(("text", "code"), [("ERR unknown command", "ERR"), ("no code at all", ""), ("", "")])
def test_an_unknown_reply_is_told_as_it_is(text, code):
    assert (reply_code(text), advised(text)) == (code, text)


def test_only_what_is_about_who_asks_refuses_a_login():
    told = {code: refuses_login(f"{code} text") for code in ("NOAUTH", "WRONGPASS", "NOPERM", "LOADING", "OOM", "ERR")}
    assert [code for code, refused in told.items() if refused] == ["NOAUTH", "WRONGPASS", "NOPERM"]


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://u:hush@h:1/2", "redis://h:1"),
        ("unix://:hush@/run/redis.sock", "unix:///run/redis.sock"),
        ("redis+cluster://:hush@h:1", "redis+cluster://h:1"),
        ("redis+sentinel://:hush@h:1,[::1]:2/rows?sentinel_password=hush", "redis+sentinel://h:1,[::1]:2/rows"),
    ],
)
@pytest.mark.parametrize(
    ("error", "says"),
    [
        (redis_errors.OutOfMemoryError("command not allowed"), "OOM command not allowed (Redis is full"),
        (redis_errors.ReadOnlyError("You can't write"), "READONLY You can't write (this is a replica"),
        (redis_errors.AuthenticationError("invalid username-password pair"), "WRONGPASS invalid"),
        (redis_errors.AuthenticationError("Authentication required."), "NOAUTH Authentication"),
        (redis_errors.ResponseError("Command # 1 (SET k hush) of pipeline caused error: ERR no"), ": ERR no"),
        (redis_errors.ClusterDownError(("The cluster is down",)), ": CLUSTERDOWN The cluster is down (a part"),
        (redis_errors.RedisClusterException("cannot be connected"), "cannot be connected"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_a_clients_error_is_told_with_the_address_and_without_the_password(url, address, error, says):
    redis = open_redis(url)
    with pytest.raises(FeatureStoreUnavailable) as caught, told_as_unavailable(redis):
        raise error
    assert caught.value.address == address
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)
