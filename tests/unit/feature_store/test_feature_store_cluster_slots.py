import pytest

from feature_store.cluster_slots import Redirect, SlotRange, parse_redirect, parse_slots

MASTER = [b"10.0.0.1", 7000, b"id", []]


def test_the_slots_of_each_master_are_read_and_replicas_left_out():
    replica = [b"10.0.0.9", 7009, b"id"]
    reply = [[0, 5460, MASTER, replica], [5461, 16383, [b"node.example", 7001, b"id", [b"ip", b"10.0.0.2"]]]]
    assert parse_slots(reply, "asked") == [
        SlotRange(0, 5460, "10.0.0.1", 7000),
        SlotRange(5461, 16383, "node.example", 7001),
    ]


@pytest.mark.parametrize("host", [None, b"", b"?"])
def test_a_node_that_does_not_know_its_host_means_the_one_that_was_asked(host):
    assert parse_slots([[0, 16383, [host, 7000]]], "asked") == [SlotRange(0, 16383, "asked", 7000)]


@pytest.mark.parametrize(
    "reply",
    [
        b"OK",
        None,
        [],
        [[]],
        [[0, 16384, MASTER]],
        [[-1, 5, MASTER]],
        [[5, 4, MASTER]],
        [[0, 5]],
        [[0, 5, b"10.0.0.1"]],
        [[0, 5, [b"10.0.0.1", 0]]],
        [[0, 5, [b"10.0.0.1", 65536]]],
        [[0, 5, [b"h" * 256, 7000]]],
        [[b"0", b"5", MASTER]],
        [[0, 0, MASTER]] * 16385,
    ],
)
def test_what_is_no_table_of_slots_is_refused(reply):
    with pytest.raises(ValueError, match=r"CLUSTER SLOTS|slot of the cluster"):
        parse_slots(reply, "asked")


@pytest.mark.parametrize(
    ("text", "redirect"),
    [
        ("MOVED 3999 10.0.0.1:6381", Redirect(3999, "10.0.0.1", 6381, False)),
        ("ASK 3999 node.example:6381", Redirect(3999, "node.example", 6381, True)),
        ("MOVED 0 [::1]:6381 (and what it means)", Redirect(0, "::1", 6381, False)),
        ("MOVED 16383 :6381", Redirect(16383, "asked", 6381, False)),
        ("MOVED 16384 10.0.0.1:6381", None),
        ("MOVED -1 10.0.0.1:6381", None),
        ("MOVED x 10.0.0.1:6381", None),
        ("MOVED 1 10.0.0.1:0", None),
        ("MOVED 1 10.0.0.1:65536", None),
        ("MOVED 1 10.0.0.1", None),
        ("MOVED 1", None),
        ("MOVED 99999999999999999999 h:1", None),
        ("TRYAGAIN Multiple keys request during rehashing of slot", None),
        ("", None),
    ],
)
def test_a_redirection_is_read_and_nothing_else_taken_for_one(text, redirect):
    assert parse_redirect(text, "asked") == redirect
