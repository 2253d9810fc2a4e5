"""A cluster connection against scripted nodes: what real ones say too seldom to wait for."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.crc import key_slot

from feature_store import FeatureStoreUnavailable, cluster_node, open_connection, redis_cluster
from feature_store.redis_cluster import ClusterConnection
from tests.unit.feature_store.scripted_redis import DEADLINE_S, ScriptedRedis, bulk

SPLIT = 8_192
"""The first node has the slots below, the second those from here."""

LOW, HIGH = b"key:1", b"key:2"
Rows = list[bytes | None]


def slots_reply(*ports: int) -> bytes:
    halves = [(0, SPLIT - 1), (SPLIT, 16_383)] if len(ports) == 2 else [(0, 16_383)]
    entries = [
        b"*3\r\n:%d\r\n:%d\r\n*2\r\n$0\r\n\r\n:%d\r\n" % (*half, port) for half, port in zip(halves, ports, strict=True)
    ]
    return b"*%d\r\n%b" % (len(entries), b"".join(entries))


class Node(ScriptedRedis):
    """A node that answers GET with `own:{key}`, unless the test says otherwise."""

    def __init__(self, name: bytes) -> None:
        super().__init__()
        self.name = name
        self.gets: dict[bytes, bytes] = {}
        self.asking: list[bytes] = []
        self.answer = self._node_answer

    def _node_answer(self, command: list[bytes]) -> bytes | None:
        if command[0] == b"GET":
            if len(self.commands) > 1 and self.commands[-2] == [b"ASKING"]:
                self.asking.append(command[1])
            return self.gets.get(command[1], bulk(self.name + b":" + command[1]))
        return self._answer(command)


def played(scene: Callable[[ClusterConnection, Node, Node], Awaitable[None]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(DEADLINE_S), Node(b"low") as low, Node(b"high") as high:
            for node in (low, high):
                node.replies |= {b"CLUSTER": slots_reply(low.port, high.port), b"ASKING": b"+OK\r\n"}
            connection = open_connection(f"redis+cluster://127.0.0.1:{low.port}")
            assert isinstance(connection, ClusterConnection)
            await connection.start()
            try:
                await scene(connection, low, high)
            finally:
                await connection.close()

    asyncio.run(play())


def read(connection: ClusterConnection, *keys: bytes) -> asyncio.Future[Rows]:
    answer: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()

    def on_rows(rows: Rows | None, fault: FeatureStoreUnavailable | None) -> None:
        if fault is None and rows is not None:
            answer.set_result(rows)
        else:
            answer.set_exception(fault or AssertionError("neither rows nor a fault"))

    connection.read(list(keys), on_rows)
    assert not answer.done()
    return answer


def redirect(kind: bytes, key: bytes, port: int) -> bytes:
    return b"-%b %d 127.0.0.1:%d\r\n" % (kind, key_slot(key), port)


def test_the_keys_of_these_tests_lie_on_different_nodes():
    assert key_slot(LOW) < SPLIT <= key_slot(HIGH)


def test_a_read_is_one_write_to_each_node_and_keeps_the_order_of_its_keys():
    async def scene(connection: ClusterConnection, low: Node, high: Node) -> None:
        assert await read(connection, HIGH, LOW, HIGH) == [b"high:" + HIGH, b"low:" + LOW, b"high:" + HIGH]
        assert low.commands[-1:] == [[b"GET", LOW]]
        assert high.commands[-2:] == [[b"GET", HIGH]] * 2
        assert connection.shard_of(LOW) == f"redis://127.0.0.1:{low.port}"
        assert connection.shard_of(HIGH) == f"redis://127.0.0.1:{high.port}"

    played(scene)


def test_a_moved_key_is_asked_for_elsewhere_once_and_later_keys_of_its_slot_go_there_at_once():
    async def scene(connection: ClusterConnection, low: Node, high: Node) -> None:
        low.gets[LOW] = redirect(b"MOVED", LOW, high.port)
        assert await read(connection, LOW, HIGH) == [b"high:" + LOW, b"high:" + HIGH]
        assert await read(connection, LOW) == [b"high:" + LOW]
        assert low.commands.count([b"GET", LOW]) == 1
        assert connection.redirected == 1
        assert not high.asking

    played(scene)


def test_a_key_on_its_way_is_asked_for_with_asking_and_its_slot_stays_where_it_was():
    async def scene(connection: ClusterConnection, low: Node, high: Node) -> None:
        low.gets[LOW] = redirect(b"ASK", LOW, high.port)
        for _again in range(2):
            assert await read(connection, LOW, HIGH) == [b"high:" + LOW, b"high:" + HIGH]
        assert low.commands.count([b"GET", LOW]) == 2
        assert high.asking == [LOW, LOW]

    played(scene)


def test_nodes_that_send_a_key_back_and_forth_are_given_up():
    async def scene(connection: ClusterConnection, low: Node, high: Node) -> None:
        low.gets[LOW], high.gets[LOW] = redirect(b"MOVED", LOW, high.port), redirect(b"MOVED", LOW, low.port)
        with pytest.raises(FeatureStoreUnavailable, match="sent elsewhere more than 2 times"):
            await read(connection, LOW)
        asked = low.commands.count([b"GET", LOW]) + high.commands.count([b"GET", LOW])
        assert asked == 1 + redis_cluster.REDIRECTS_MAX

    played(scene)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"-CLUSTERDOWN Hash slot not served\r\n", "CLUSTERDOWN"),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", "TRYAGAIN"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        (b"-MOVED nowhere\r\n", "MOVED nowhere"),
        (b":7\r\n", "no row"),
    ],
)
def test_an_error_of_one_node_fails_the_reads_that_have_its_keys_and_no_other(reply, says):
    async def scene(connection: ClusterConnection, low: Node, high: Node) -> None:
        low.gets[LOW] = reply
        both, other = read(connection, HIGH, LOW, LOW), read(connection, HIGH)
        with pytest.raises(FeatureStoreUnavailable, match=says):
            await both
        assert await other == [b"high:" + HIGH]
        del low.gets[LOW]
        assert await read(connection, LOW) == [b"low:" + LOW]

    played(scene)


def test_a_node_that_hangs_up_fails_its_own_reads_alone_and_is_connected_to_again():
    async def scene(connection: ClusterConnection, low: Node, high: Node) -> None:
        low.answer = lambda command: None if command[0] == b"GET" else low._answer(command)
        stalled = read(connection, LOW)
        await low.until(lambda: [b"GET", LOW] in low.commands)
        low.hang_up()
        with pytest.raises(FeatureStoreUnavailable, match=f"127.0.0.1:{low.port}"):
            await stalled
        assert await read(connection, HIGH) == [b"high:" + HIGH]
        with pytest.raises(FeatureStoreUnavailable):
            read(connection, HIGH, LOW)
        low.answer = low._node_answer
        while (rows := await attempted(connection, LOW)) is None:  # noqa: ASYNC110 - there is no event to wait on
            await asyncio.sleep(0.01)
        assert rows == [b"low:" + LOW]

    played(scene)


async def attempted(connection: ClusterConnection, key: bytes) -> Rows | None:
    try:
        return await read(connection, key)
    except FeatureStoreUnavailable:
        return None


def test_however_many_reads_find_the_table_wrong_it_is_learnt_again_at_a_bounded_rate(monkeypatch):
    async def scene(connection: ClusterConnection, low: Node, high: Node) -> None:
        low.replies[b"CLUSTER"] = high.replies[b"CLUSTER"] = slots_reply(high.port)
        before = connection.learnt
        for count in range(200):
            key = b"key:%d" % count
            low.gets[key] = redirect(b"MOVED", key, high.port)
            await read(connection, key)
        assert connection.learnt <= before + 1
        await low.until(lambda: connection.learnt > before)
        # The node without slots is let go after a few looks, and not before.
        assert len(connection._nodes) == 2

    played(scene)


def test_a_node_without_slots_is_let_go_after_a_few_looks(monkeypatch):
    monkeypatch.setattr(redis_cluster, "LEARN_INTERVAL_MIN_S", 0.01)
    monkeypatch.setattr(redis_cluster, "LEARN_INTERVAL_MAX_S", 0.01)

    async def scene(connection: ClusterConnection, low: Node, high: Node) -> None:
        low.replies[b"CLUSTER"] = high.replies[b"CLUSTER"] = slots_reply(high.port)
        await low.until(lambda: len(connection._nodes) == 1)
        assert await read(connection, LOW, HIGH) == [b"high:" + LOW, b"high:" + HIGH]

    played(scene)


def test_reads_of_a_node_that_was_just_heard_of_wait_for_it_and_only_so_many(monkeypatch):
    monkeypatch.setattr(cluster_node, "PARTS_PARKED_MAX", 2)

    async def scene(connection: ClusterConnection, low: Node, high: Node) -> None:
        async with Node(b"new") as new:
            low.gets[LOW] = redirect(b"MOVED", LOW, new.port)
            reads = [read(connection, LOW) for _caller in range(4)]
            results = await asyncio.gather(*reads, return_exceptions=True)
            assert results.count([b"new:" + LOW]) == 2
            told = [str(result) for result in results if isinstance(result, FeatureStoreUnavailable)]
            assert len(told) == 2
            assert all("wait for it to connect" in text for text in told)

    played(scene)


def test_without_any_node_a_read_fails_at_once_with_what_each_node_said():
    async def scene() -> None:
        async with ScriptedRedis() as away:
            port = away.port
        async with Node(b"lost") as lost:
            lost.replies[b"CLUSTER"] = b"*0\r\n"
            connection = open_connection(f"redis+cluster://127.0.0.1:{port},127.0.0.1:{lost.port}")
            await connection.start()
            assert not connection.connected
            assert connection.shard_of is not None
            assert connection.shard_of(LOW) == ""
            with pytest.raises(FeatureStoreUnavailable) as caught:
                connection.read([LOW], lambda _rows, _fault: None)
            assert "Connect call failed" in caught.value.reason
            assert "no slot of the cluster is given to any node yet" in caught.value.reason
            lost.replies[b"CLUSTER"] = slots_reply(lost.port)
            await lost.until(lambda: connection.connected)
            await connection.close()

    asyncio.run(scene())


def test_closing_fails_what_waits_and_a_closed_connection_can_be_started_again():
    async def scene(connection: ClusterConnection, low: Node, high: Node) -> None:
        low.answer = lambda command: None if command[0] == b"GET" else low._answer(command)
        waiting = read(connection, LOW)
        await connection.close()
        with pytest.raises(FeatureStoreUnavailable, match="closed"):
            await waiting
        with pytest.raises(FeatureStoreUnavailable, match="closed"):
            read(connection, HIGH)
        await connection.start()
        assert await read(connection, HIGH) == [b"high:" + HIGH]

    played(scene)
