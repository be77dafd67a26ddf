"""What a run has changed is taken back, whatever happens."""

import threading
from functools import partial

import pytest

from loramux_bench.admin.client import CallFailed
from loramux_bench.admin.restoration import Restoration
from loramux_bench.errors import EndpointError


def test_everything_is_taken_back_though_one_step_fails() -> None:
    done: list[str] = []
    restoration = Restoration(done.append)

    def fail() -> None:
        raise EndpointError("It is locked.")

    restoration.owe("delete a", partial(done.append, "a"))
    restoration.owe("delete b", fail)
    restoration.owe("delete c", partial(done.append, "c"))
    assert restoration.run() == ("The bench could not delete b: It is locked.",)
    assert sorted(done) == ["a", "c"]
    assert restoration.run() == ()


def test_what_is_settled_is_not_done_again() -> None:
    done: list[str] = []
    restoration = Restoration(done.append)
    restoration.owe("delete a", partial(done.append, "a"))
    restoration.owe("delete b", partial(done.append, "b"))
    restoration.settle("delete b")
    restoration.settle("delete what was never made")
    assert restoration.run() == ()
    assert done == ["a"]


def test_an_interrupt_takes_back_and_complains() -> None:
    done: list[str] = []
    complaints: list[str] = []

    def fail() -> None:
        raise EndpointError("No.")

    def interrupted() -> None:
        with Restoration(complaints.append) as restoration:
            restoration.resources.callback(done.append, "closed")
            restoration.owe("delete a", partial(done.append, "a"))
            restoration.owe("delete b", fail)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["a", "closed"]
    assert complaints == ["The bench could not delete b: No."]


def test_an_endpoint_that_is_gone_is_not_tried_for_ever() -> None:
    tried: list[int] = []
    all_in = threading.Barrier(4)

    def refused(number: int) -> None:
        tried.append(number)
        if number > 95:
            all_in.wait(20)
        raise CallFailed("There is no endpoint.", code="connect")

    restoration = Restoration(print)
    for number in range(100):
        restoration.owe(f"delete {number}", partial(refused, number))
    sentences = restoration.run()
    assert len(tried) < 100
    assert sentences[0] == "The bench could not delete 99: There is no endpoint."
    assert sentences[-1].startswith("Nor could it, as the endpoint is gone: ")
    assert all(f"delete {number}" in " ".join(sentences) for number in range(100))
