import asyncio
import logging
from collections.abc import Sequence
from random import Random

import pytest

from gateway.configuration.discovery import ADDRESSES_MAX, Discovery
from gateway.dispatch.worker_address import WorkerAddress
from tests.unit.gateway.gateway_fakes import in_loop


class Names:
    """A resolver that a test owns: what it gives by name, or raises."""

    def __init__(self, **given: Sequence[str] | Exception) -> None:
        self.given = given
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        answer = self.given[host]
        if isinstance(answer, Exception):
            raise answer
        return answer


def following(names: Names, *urls: str) -> tuple[Discovery, list[list[str]]]:
    changes: list[list[str]] = []
    discovery = Discovery(urls, names, lambda found: changes.append([a.url for a in found]), Random(1))
    return discovery, changes


def test_an_address_is_taken_as_it_is_and_nothing_is_resolved():
    names = Names()
    discovery, changes = following(names, "http://10.0.0.1:8090", "https://[::1]:8443")
    assert discovery.addresses == (
        WorkerAddress("http://10.0.0.1:8090", "10.0.0.1", 8090, b"10.0.0.1:8090"),
        WorkerAddress("https://[::1]:8443", "::1", 8443, b"[::1]:8443", "::1"),
    )
    assert not discovery.follows_names
    assert (names.asked, changes) == ([], [])


@in_loop
async def test_a_name_becomes_all_its_addresses_and_keeps_its_name_in_the_host_header():
    discovery, changes = following(Names(workers=["10.0.0.2", "10.0.0.1", "10.0.0.2"]), "http://workers:8090")
    assert discovery.addresses == ()
    await discovery.look()
    assert changes == [["http://10.0.0.1:8090", "http://10.0.0.2:8090"]]
    assert {(a.host, a.port, a.host_header, a.server_name) for a in discovery.addresses} == {
        ("10.0.0.1", 8090, b"workers:8090", None),
        ("10.0.0.2", 8090, b"workers:8090", None),
    }


@in_loop
async def test_a_worker_over_tls_is_known_by_the_name_in_its_url():
    discovery, _ = following(Names(workers=["10.0.0.1"]), "https://workers:8443")
    await discovery.look()
    assert [(a.url, a.server_name) for a in discovery.addresses] == [("https://10.0.0.1:8443", "workers")]


@in_loop
async def test_of_a_name_with_both_families_only_ipv4_is_used_and_ipv6_where_there_is_nothing_else():
    names = Names(dual=["fd00::1", "10.0.0.1"], six=["fd00::2"])
    discovery, changes = following(names, "http://dual:1", "http://six:1")
    await discovery.look()
    assert changes == [["http://10.0.0.1:1", "http://[fd00::2]:1"]]


@in_loop
async def test_a_pod_that_comes_or_goes_is_told_once_and_the_order_of_an_answer_is_no_change():
    names = Names(workers=["10.0.0.1", "10.0.0.2"])
    discovery, changes = following(names, "http://workers:1")
    await discovery.look()
    names.given["workers"] = ["10.0.0.2", "10.0.0.1"]
    await discovery.look()
    names.given["workers"] = ["10.0.0.2", "10.0.0.3"]
    await discovery.look()
    assert changes == [["http://10.0.0.1:1", "http://10.0.0.2:1"], ["http://10.0.0.2:1", "http://10.0.0.3:1"]]


@pytest.mark.parametrize("failure", [OSError("SERVFAIL"), UnicodeError("label too long"), [], ["no address"]])
def test_a_failed_or_empty_look_up_keeps_the_last_addresses_and_is_logged_once(failure, caplog):
    @in_loop
    async def scenario() -> None:
        names = Names(workers=["10.0.0.1"], other=["10.0.0.9"])
        discovery, changes = following(names, "http://workers:1", "http://other:1")
        await discovery.look()
        names.given["workers"] = failure
        for _ in range(3):
            await discovery.look()
        names.given["other"] = ["10.0.0.8"]
        await discovery.look()
        assert changes[1:] == [["http://10.0.0.1:1", "http://10.0.0.8:1"]]

    with caplog.at_level(logging.WARNING):
        scenario()
    assert len(caplog.records) == 1


@in_loop
async def test_a_look_up_that_hangs_delays_no_other_name_and_is_not_asked_twice(monkeypatch):
    monkeypatch.setattr("gateway.configuration.discovery.RESOLVE_TIMEOUT_S", 0.01)
    hanging = asyncio.Event()
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        if host == "slow":
            await hanging.wait()
        return ["10.0.0.1" if host == "slow" else "10.0.0.2"]

    discovery = Discovery(["http://slow:1", "http://fast:1"], resolve, lambda _: None, Random(1))
    await discovery.look()
    await discovery.look()
    assert [a.host for a in discovery.addresses] == ["10.0.0.2"]
    assert asked == ["slow", "fast", "fast"]
    hanging.set()
    await discovery.look()
    assert [a.host for a in discovery.addresses] == ["10.0.0.1", "10.0.0.2"]
    await discovery.close()


@in_loop
async def test_two_names_of_one_worker_are_one_worker_and_the_number_of_workers_is_bounded():
    many = [f"10.0.{i // 250}.{i % 250}" for i in range(ADDRESSES_MAX + 10)]
    names = Names(one=many, two=many)
    discovery, _ = following(names, "http://one:1", "http://two:1")
    await discovery.look()
    assert len(discovery.addresses) == len({a.host for a in discovery.addresses}) == ADDRESSES_MAX


@in_loop
async def test_a_started_discovery_resolves_at_once_and_ends_when_closed():
    told = asyncio.Event()
    discovery = Discovery(["http://workers:1"], Names(workers=["10.0.0.1"]), lambda _: told.set(), Random(1))
    discovery.start()
    await asyncio.wait_for(told.wait(), 5)
    await discovery.close()
    assert len(asyncio.all_tasks()) == 1
