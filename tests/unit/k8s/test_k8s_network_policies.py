"""Who may speak to whom, worked out from the policies as a cluster would: what no rule allows is refused."""

from dataclasses import dataclass, field

import pytest

from tests.unit.k8s.deployment_files import documents, workloads

ADMIN_NAMESPACE = {"sekisho/admin": "true"}
DNS_NAMESPACE = {"kubernetes.io/metadata.name": "kube-system"}
PEERS_FIELD = {"ingress": "from", "egress": "to"}

(GATEWAY,) = [w.labels for w in workloads() if w.name == "gateway"]
WORKERS = [w.labels for w in workloads() if w.name != "gateway"]
on_every_worker = pytest.mark.parametrize("worker", WORKERS, ids=lambda labels: labels["sekisho/version"])


@dataclass(frozen=True)
class Peer:
    """The other side: a pod's labels, and its namespace's where that is not our own."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: dict[str, str] | None = None


def matches(selector, labels) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_peer(entry, peer) -> bool:
    if "namespaceSelector" not in entry:
        return peer.namespace is None and matches(entry["podSelector"], peer.labels)
    return matches(entry["namespaceSelector"], peer.namespace or {}) and matches(
        entry.get("podSelector", {}), peer.labels
    )


def allows(rule, direction, peer, port, protocol) -> bool:
    # As the API has it: a rule without peers is for everyone, one without ports is for every port.
    entries, ports = rule.get(PEERS_FIELD[direction]), rule.get("ports")
    to_peer = not entries or any(is_peer(entry, peer) for entry in entries)
    return to_peer and (not ports or {"protocol": protocol, "port": port} in ports)


def allowed(direction, pod, peer, port, protocol="TCP") -> bool:
    """Whether `pod` may be spoken to (ingress) or speak (egress) on that port of the one that listens."""
    chosen = [p["spec"] for p in documents("NetworkPolicy") if matches(p["spec"]["podSelector"], pod)]
    closed = any(direction.capitalize() in spec["policyTypes"] for spec in chosen)
    rules = [rule for spec in chosen for rule in spec.get(direction, [])]
    return not closed or any(allows(rule, direction, peer, port, protocol) for rule in rules)


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_pod_that_no_policy_names_is_closed_both_ways(direction):
    assert not allowed(direction, {"app.kubernetes.io/name": "stranger"}, Peer(), 8080)


def test_each_policy_but_the_default_selects_a_pod_that_runs():
    for policy in documents("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        assert selector == {} or any(matches(selector, w.labels) for w in workloads())


@on_every_worker
def test_the_gateway_reaches_every_worker_and_is_let_in(worker):
    assert allowed("egress", GATEWAY, Peer(worker), 8090)
    assert allowed("ingress", worker, Peer(GATEWAY), 8090)


@on_every_worker
def test_nobody_but_the_gateway_is_let_into_a_worker(worker):
    assert not allowed("ingress", worker, Peer(WORKERS[0]), 8090)
    assert not allowed("ingress", worker, Peer(GATEWAY, namespace={}), 8090)
    assert not allowed("ingress", worker, Peer(namespace=ADMIN_NAMESPACE), 8090)


@on_every_worker
def test_a_worker_reaches_nothing(worker):
    assert not allowed("egress", worker, Peer(GATEWAY), 8080)
    assert not allowed("egress", worker, Peer(namespace={}), 443)
    assert not allowed("egress", worker, Peer({"k8s-app": "kube-dns"}, DNS_NAMESPACE), 53, "UDP")


def test_every_namespace_may_predict_and_only_labelled_ones_may_administer():
    assert allowed("ingress", GATEWAY, Peer(namespace={}), 8080)
    assert not allowed("ingress", GATEWAY, Peer(namespace={}), 8081)
    assert not allowed("ingress", GATEWAY, Peer(WORKERS[0]), 8081)
    assert allowed("ingress", GATEWAY, Peer(namespace=ADMIN_NAMESPACE), 8081)


def test_the_gateway_reaches_redis_and_dns_and_nothing_else_outside():
    assert allowed("egress", GATEWAY, Peer(namespace={}), 6379)
    for protocol in ("UDP", "TCP"):
        assert allowed("egress", GATEWAY, Peer({"k8s-app": "kube-dns"}, DNS_NAMESPACE), 53, protocol)
    assert not allowed("egress", GATEWAY, Peer(namespace={}), 53, "UDP")
    assert not allowed("egress", GATEWAY, Peer(namespace={}), 443)
    assert not allowed("egress", GATEWAY, Peer(namespace={}), 8090)
