"""What doors count of calls."""

from raftkv.daemon.etcd.counting import CLIENT_VERSIONS_MAX, OTHER_VERSIONS, UNKNOWN_VERSION, CallCounts


def test_the_figures_of_a_procedure_are_one_object() -> None:
    calls = CallCounts(["/a/b"])
    counts = calls.of("/a/b")
    counts.started += 1
    counts.handled[14] += 1
    assert calls.methods["/a/b"].handled == [0] * 14 + [1, 0, 0]
    assert calls.of("/c/d") is calls.of("/c/d")
    assert list(calls.methods) == ["/a/b", "/c/d"]


def test_versions_that_clients_invent_do_not_grow_without_bound() -> None:
    calls = CallCounts()
    calls.note_request(None, is_stream=False)
    calls.note_request("3.5", is_stream=True)
    calls.note_request("3.5", is_stream=True)
    assert calls.requests == {(False, UNKNOWN_VERSION): 1, (True, "3.5"): 2}
    for number in range(1000):
        calls.note_request(f"v{number}", is_stream=False)
    assert len(calls.requests) <= CLIENT_VERSIONS_MAX + 2
    assert sum(calls.requests.values()) == 1003
    assert calls.requests[False, OTHER_VERSIONS] > 900
