import ssl

import pytest

from feature_store.redis_address import (
    SERVERS_MAX,
    ClusterAddress,
    RedisAddress,
    SentinelAddress,
    TlsFiles,
    parse_redis_url,
)


def test_a_url_of_one_server_is_taken_apart():
    tcp = parse_redis_url(
        "rediss://me:p%2Fw@cache.example:7000/2?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem"
    )
    files = TlsFiles(ca_file="/ca.pem", certificate_file="/c.pem", key_file="/k.pem")
    assert tcp == RedisAddress(host="cache.example", port=7000, tls=files, username="me", password="p/w", database=2)
    local = parse_redis_url("unix://:pw@/run/my%20redis.sock?db=4")
    assert local == RedisAddress(path="/run/my redis.sock", password="pw", database=4)
    assert str(local) == "unix:///run/my redis.sock"
    assert str(parse_redis_url("redis://")) == "redis://localhost:6379"
    assert str(parse_redis_url("redis://[::1]:7000")) == "redis://[::1]:7000"


def test_a_url_of_sentinels_names_them_the_master_and_both_logins():
    address = parse_redis_url(
        "rediss+sentinel://me:pw@s1,s2:7000,[::1]:7001/mymaster/3?sentinel_username=watch&sentinel_password=man"
    )
    assert isinstance(address, SentinelAddress)
    assert [(s.host, s.port, s.username, s.password) for s in address.sentinels] == [
        ("s1", 26379, "watch", "man"),
        ("s2", 7000, "watch", "man"),
        ("::1", 7001, "watch", "man"),
    ]
    assert address.master_name == "mymaster"
    assert address.login == RedisAddress(tls=TlsFiles(), username="me", password="pw", database=3)
    assert str(address) == "rediss+sentinel://s1:26379,s2:7000,[::1]:7001/mymaster"


def test_a_url_of_a_cluster_names_nodes_with_one_login():
    address = parse_redis_url("redis+cluster://:pw@h1:7000,h2")
    assert isinstance(address, ClusterAddress)
    assert address.nodes == (
        RedisAddress(host="h1", port=7000, password="pw"),
        RedisAddress(host="h2", port=6379, password="pw"),
    )
    assert str(address) == "redis+cluster://h1:7000,h2:6379"


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:hush@h/1",
        "unix://:hush@/run/redis.sock",
        "rediss+sentinel://me:hush@h/m?sentinel_password=hush",
        "redis+cluster://:hush@h",
    ],
)
def test_neither_the_text_nor_the_representation_of_an_address_has_a_password(url):
    address = parse_redis_url(url)
    assert "hush" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "without any scheme"),
        ("localhost:6379", "without any scheme"),
        ("http://localhost", "'http'"),
        ("unix://", "socket's path"),
        ("redis://h:99999", "port"),
        ("redis://h:0", "port"),
        ("redis://h:x", "port"),
        ("redis://h/one", "database"),
        ("redis://h/-1", "database"),
        ("redis://h/65536", "database"),
        ("redis://h?sslcert=1", "unknown option 'sslcert'"),
        ("redis://h?ssl_ca_certs=/ca.pem", "needs TLS"),
        ("rediss://h?ssl_ca_certs=", "is empty"),
        ("rediss://h?ssl_keyfile=/k.pem", "without ssl_certfile"),
        ("redis://h1,h2", r"redis\+sentinel:// or redis\+cluster://"),
        ("redis://me@h", "no password"),
        ("redis://[::1", "cannot be taken apart"),
        ("redis+sentinel://h", "names the master"),
        ("redis+sentinel://h1,,h2/m", "empty place"),
        ("redis+cluster://h/1", "only 0"),
        ("redis+cluster://h?sentinel_password=x", "unknown option"),
        ("redis+cluster://" + ",".join(["h"] * (SERVERS_MAX + 1)), "101 servers"),
        ("redis+replica://h", "redis[+]replica"),
    ],
)
def test_what_is_no_redis_url_is_refused_with_what_is_wrong(url, says):
    with pytest.raises(ValueError, match=says) as caught:
        parse_redis_url(url)
    assert "Redis URL" in str(caught.value)


@pytest.mark.parametrize("url", ["redis://:hu/sh@h", "redis://:hu#sh@h", "redis://:hu?sh@h", "redis://:hush@h:x/9"])
def test_a_refused_url_is_not_repeated_with_its_password(url):
    with pytest.raises(ValueError, match="Redis URL") as caught:
        parse_redis_url(url)
    assert "hu" not in str(caught.value)
    assert "sh@" not in str(caught.value)


def test_tls_always_verifies_certificates_and_host_names(tmp_path):
    address = parse_redis_url("rediss://h")
    assert isinstance(address, RedisAddress)
    context = address.ssl_context()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    missing = parse_redis_url(f"rediss://h?ssl_ca_certs={tmp_path}/none.pem")
    assert isinstance(missing, RedisAddress)
    with pytest.raises(OSError, match="No such file"):
        missing.ssl_context()
