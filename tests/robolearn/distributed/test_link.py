"""Actors and learner over real connections of this machine."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
import torch
import wire_samples as samples
from wire_samples import ABOUT

from robolearn.distributed import service
from robolearn.distributed.actor import ActorLink, JournalFullError, RefusedError
from robolearn.distributed.journal import JournalError
from robolearn.distributed.learner import LearnerServer
from robolearn.distributed.outbox import LOOK_S
from robolearn.distributed.records import Record, WireError, encode, wire
from robolearn.distributed.weights import pack

ANY = "127.0.0.1:0"
LONG_S = 30.0
"""Of a busy machine; nothing waits for it unless a test fails."""


@contextmanager
def learner(folder, address: str = ANY, about=ABOUT, **how: Any) -> Iterator[LearnerServer]:
    with LearnerServer(address, about, folder / "learner", fsync="never", **how) as server:
        yield server


@contextmanager
def actor(folder, address: str, name: str = "left", about=ABOUT, **how: Any) -> Iterator[ActorLink]:
    with ActorLink(address, about, folder / name, actor=name, **how) as link:
        yield link


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def values(records: Iterator[Record]) -> list[float]:
    return [float(r.tensors["obs/policy"][0]) for r in records]


def test_records_arrive_in_order_and_are_acknowledged(tmp_path):
    with learner(tmp_path) as server, actor(tmp_path, server.address) as link:
        assert link.send(samples.first(0.0)) == 1
        assert [link.send(samples.step(v)) for v in range(1, 50)] == list(range(2, 51))
        assert link.wait_acknowledged(LONG_S)
        records = list(server.read())
        assert [(r.actor, r.sequence, r.first) for r in records] == [("left", n, n == 1) for n in range(1, 51)]
        assert values(iter(records)) == list(range(50))
        np.testing.assert_array_equal(records[7].tensors["obs/front"], np.full((2, 2, 3), 7, np.uint8))
        assert records[7].numbers == {"reward": 7.0, "human": 1.0}
        assert values(server.read({"left": 47})) == [47.0, 48.0, 49.0]
        state = link.state()
        assert (state.connected, state.refused, state.problem, state.unacknowledged) == (True, False, "", 0)
        assert server.actors()["left"].connected and server.actors()["left"].last == 50


def test_reading_waits_for_what_comes(tmp_path):
    with learner(tmp_path) as server, actor(tmp_path, server.address) as link:
        later = threading.Timer(0.2, lambda: link.send(samples.step(5.0)))
        later.start()
        reader = server.read(timeout_s=LONG_S)
        assert next(reader).sequence == 1
        later.join()
        assert list(server.read({"left": 1}, timeout_s=0.05)) == []


def test_several_actors_feed_one_learner(tmp_path):
    with learner(tmp_path) as server:

        def work(name: str, base: int) -> None:
            with actor(tmp_path, server.address, name) as link:
                for value in range(base, base + 100):
                    link.send(samples.step(value))
                assert link.wait_acknowledged(LONG_S)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, ("a", "b", "c"), (0, 1000, 2000)))
        got = list(server.read({"b": 90}))
        for name, expected in (("a", range(100)), ("b", range(1090, 1100)), ("c", range(2000, 2100))):
            assert values(r for r in got if r.actor == name) == list(expected)
        assert sorted(r.actor for r in got[:3]) == ["a", "b", "c"]  # in turn


def test_the_actor_works_without_a_learner_and_catches_up(tmp_path):
    with learner(tmp_path) as server:
        address = server.address
        with actor(tmp_path, address) as link:
            link.send(samples.step(0.0))
            assert link.wait_acknowledged(LONG_S)
    with actor(tmp_path, address) as link:
        for value in range(1, 11):
            link.send(samples.step(value))
        until(lambda: "unavailable" in link.state().problem)
        assert not link.wait_connected(0.0) and link.state().unacknowledged >= 10
    with actor(tmp_path, address) as link:  # a new process goes on with the numbers
        assert link.send(samples.step(11.0)) == 12
        with learner(tmp_path, address) as server:
            assert link.wait_acknowledged(LONG_S)
            assert values(server.read()) == list(range(12))
        until(lambda: not link.state().connected)
        link.send(samples.step(12.0))
        with learner(tmp_path, address) as server:
            assert link.wait_acknowledged(LONG_S)
            assert values(server.read({"left": 11})) == [11.0, 12.0]


def test_what_is_acknowledged_leaves_the_actors_journal(tmp_path):
    with learner(tmp_path) as server, actor(tmp_path, server.address, segment_mb=0.001) as link:
        for value in range(100):
            link.send(samples.step(value))
        assert link.wait_acknowledged(LONG_S)
        until(lambda: len(list((tmp_path / "left").glob("*.journal"))) == 1)
        assert link.state().journal_bytes < 2048
        server.forget({"left": 100})
        assert len(list((tmp_path / "learner/actors/left").glob("*.journal"))) == 1


def test_a_full_journal_is_an_error_and_goes_on_when_there_is_room(tmp_path, caplog):
    with learner(tmp_path) as server:
        address = server.address
    with actor(tmp_path, address, limit_mb=0.02) as link:
        with pytest.raises(JournalFullError, match=r"limit of 0.02 MB .*start the learner"):
            for value in range(1000):
                link.send(samples.step(value))
        sent = link.state().unacknowledged
        assert 20 < sent < 1000 and caplog.text.count("is half full") == 1
        with learner(tmp_path, address) as server:
            assert link.wait_acknowledged(LONG_S)
            until(lambda: link.state().journal_bytes < 10_000)
            assert link.send(samples.step(0.0)) == sent + 1


def test_a_slow_disk_delays_the_learner_and_not_the_robot(tmp_path, monkeypatch):
    slow, fsync = threading.Event(), os.fsync

    def wait(descriptor: int) -> None:
        slow.wait(LONG_S)
        fsync(descriptor)

    with learner(tmp_path) as server, actor(tmp_path, server.address) as link:
        assert link.wait_connected(LONG_S)
        monkeypatch.setattr(os, "fsync", wait)
        for value in range(20):
            link.send(samples.step(value))
        assert not link.wait_acknowledged(0.3)
        assert server.actors()["left"].last == 0  # it has nothing that a loss of power could take from the actor
        slow.set()
        assert link.wait_acknowledged(LONG_S)


def test_a_learner_whose_disk_is_full_acknowledges_when_there_is_room(tmp_path, monkeypatch):
    def full(payload: bytes) -> int:
        raise JournalError("the disk is full")

    with learner(tmp_path) as server, actor(tmp_path, server.address) as link:
        link.send(samples.step(0.0))
        assert link.wait_acknowledged(LONG_S)
        with monkeypatch.context() as patch:
            patch.setattr(server._inboxes["left"].journal, "append", full)
            link.send(samples.step(1.0))
            until(lambda: "the disk is full" in link.state().problem)
            assert not link.state().refused and link.state().unacknowledged == 1
        assert link.wait_acknowledged(LONG_S)
        assert values(server.read()) == [0.0, 1.0]


def test_a_record_that_was_written_but_not_brought_to_the_disk_is_told_once_and_no_reason_to_refuse(
    tmp_path, monkeypatch
):
    """The learner has it, and says so when the actor comes again: by its own checksum, not that of the one before."""
    fsync, failed = os.fsync, threading.Event()

    def broken(descriptor: int) -> None:
        if f"{os.sep}learner{os.sep}actors" in os.readlink(f"/proc/self/fd/{descriptor}") and not failed.is_set():
            failed.set()
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    with LearnerServer(ANY, ABOUT, tmp_path / "learner") as server, actor(tmp_path, server.address) as link:
        link.send(samples.step(0.0))
        assert link.wait_acknowledged(LONG_S)
        monkeypatch.setattr(os, "fsync", broken)
        link.send(samples.step(1.0))
        assert link.wait_acknowledged(LONG_S) and failed.is_set()
        link.send(samples.step(2.0))
        assert link.wait_acknowledged(LONG_S) and not link.state().refused
        assert values(server.read()) == [0.0, 1.0, 2.0]


def test_a_record_that_does_not_fit_takes_no_number(tmp_path):
    with learner(tmp_path) as server, actor(tmp_path, server.address) as link:
        with pytest.raises(WireError, match="lacks action"):
            link.send(Record({**samples.first(0.0).tensors}, {"reward": 0.0, "human": 0.0}))
        assert link.send(samples.step(0.0)) == 1
        assert link.wait_acknowledged(LONG_S)


# --- refusals ----------------------------------------------------------------------------------------------


def refused(link: ActorLink) -> str:
    with pytest.raises(RefusedError) as error:
        link.wait_connected(LONG_S)
    with pytest.raises(RefusedError):
        link.send(samples.step(0.0))
    assert link.state().refused and str(error.value) == link.state().problem
    return str(error.value)


def test_another_robot_is_refused_and_both_are_named(tmp_path):
    other = samples.other(specification={**ABOUT.specification, "robot": "ur5e"})
    with learner(tmp_path) as server, actor(tmp_path, server.address, about=other) as link:
        assert "specification.robot: 'franka' != 'ur5e'" in refused(link)
        assert server.actors() == {}


def test_another_schema_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("robolearn.distributed.actor.SCHEMA", 99)
    with learner(tmp_path) as server, actor(tmp_path, server.address) as link:
        assert "the actor speaks schema 99, the learner 1" in refused(link)


def test_a_server_of_another_kind_is_refused(tmp_path):
    server = grpc.server(ThreadPoolExecutor(2))
    port = server.add_insecure_port(ANY)
    server.start()
    try:
        with actor(tmp_path, f"127.0.0.1:{port}") as link:
            assert "Method not found" in refused(link)
    finally:
        server.stop(None).wait()


def test_another_journal_of_the_same_name_is_refused(tmp_path):
    with learner(tmp_path) as server:
        with actor(tmp_path / "one", server.address) as link:
            link.send(samples.step(0.0))
            assert link.wait_acknowledged(LONG_S)
        with actor(tmp_path / "two", server.address) as link:
            assert "give the actor its old journal, or another name" in refused(link)


def test_a_learner_that_lost_its_journal_is_noticed(tmp_path):
    with learner(tmp_path / "old") as server, actor(tmp_path, server.address, segment_mb=0.001) as link:
        for value in range(100):
            link.send(samples.step(value))
        assert link.wait_acknowledged(LONG_S)
        until(lambda: len(list((tmp_path / "left").glob("*.journal"))) == 1)
    with learner(tmp_path / "new") as server, actor(tmp_path, server.address) as link:
        assert "record 1 of left is wanted, but its journal begins at" in refused(link)


@pytest.mark.parametrize("more", [0, 5])
def test_an_actor_whose_journal_lost_its_end_is_noticed(tmp_path, more):
    with learner(tmp_path) as server:
        with actor(tmp_path, server.address) as link:
            for value in range(5):
                link.send(samples.step(value))
            assert link.wait_acknowledged(LONG_S)
        path = tmp_path / "left" / f"{1:020d}.journal"
        path.write_bytes(path.read_bytes()[:-1])  # record 5 is cut at the next start
        with learner(tmp_path / "elsewhere") as away:
            unused = away.address
        with actor(tmp_path, unused) as link:
            for value in range(more):
                assert link.send(samples.step(100.0 + value)) == 5 + value  # other records by known numbers
        with actor(tmp_path, server.address) as link:
            assert "lost its end" in refused(link)
        assert values(server.read()) == list(range(5))


def test_journals_of_another_run_are_not_opened(tmp_path):
    with learner(tmp_path) as server, actor(tmp_path, server.address):
        address = server.address
    other = samples.other(run="lift-8")
    with pytest.raises(WireError, match="run: 'lift-8' != 'lift-7'"), actor(tmp_path, address, about=other):
        pass
    with pytest.raises(WireError, match="run: 'lift-8' != 'lift-7'"), learner(tmp_path, about=other):
        pass
    with pytest.raises(WireError, match="is that of left, not of right"):
        ActorLink(address, ABOUT, tmp_path / "left", actor="right")
    with learner(tmp_path), actor(tmp_path, address):  # and neither is left locked
        pass


def test_positions_that_the_journal_does_not_reach_are_an_error(tmp_path):
    with learner(tmp_path) as server, actor(tmp_path, server.address) as link:
        link.send(samples.step(0.0))
        assert link.wait_acknowledged(LONG_S)
        with pytest.raises(JournalError, match="from 3 on"):
            next(server.read({"left": 2}))
        with pytest.raises(JournalError, match="nothing of right"):
            next(server.read({"right": 1}))
        assert list(server.read({"right": 0, "left": 1})) == []


# --- the learner's end, spoken to by hand --------------------------------------------------------------------


@contextmanager
def by_hand(server: LearnerServer) -> Iterator[Callable[..., list[Any]]]:
    """A call with all its messages, and the answers."""
    with grpc.insecure_channel(server.address) as channel:

        def exchange(*messages: Any) -> list[Any]:
            return list(service.call(channel, "SendRecords")(iter(messages), timeout=LONG_S))

        yield exchange


def hello(**changes: Any) -> Any:
    said = {"schema": 1, "actor": "hand", "journal": "j", "about": ABOUT.to_json(), "first": 1, "last": 9} | changes
    return wire.FromActor(hello=wire.Hello(**said))


def numbered(sequence: int, value: float | None = None) -> Any:
    record = samples.step(sequence if value is None else value)
    data = encode(Record(record.tensors, record.numbers, sequence=sequence), ABOUT)
    return wire.FromActor(record=data)


def test_a_repeated_record_is_acknowledged_and_not_stored_twice(tmp_path):
    with learner(tmp_path) as server, by_hand(server) as exchange:
        answers = exchange(hello(), numbered(1), numbered(2), numbered(1), numbered(2), numbered(3))
        assert answers[0].welcome.last == 0
        assert [a.acknowledged for a in answers[1:]] == [1, 2, 2, 2, 3]
        assert exchange(hello())[0].welcome.last == 3
        assert values(server.read()) == [1.0, 2.0, 3.0]


def test_a_gap_is_refused_and_the_wanted_number_named(tmp_path):
    with learner(tmp_path) as server, by_hand(server) as exchange:
        with pytest.raises(grpc.RpcError, match="record 2 of hand is wanted, 3 came"):
            exchange(hello(), numbered(1), numbered(3))
        assert "record 2 of hand is wanted" in server.actors()["hand"].problem
        assert values(server.read()) == [1.0]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (wire.FromActor(record=b"\xff\xfe"), "no Record of schema 1"),
        (wire.FromActor(), "unknown kind 0"),
        (hello(), "unknown kind 0"),
    ],
)
def test_garbage_is_refused_and_the_learner_goes_on(tmp_path, message, says):
    with learner(tmp_path) as server, by_hand(server) as exchange:
        with pytest.raises(grpc.RpcError, match=says):
            exchange(hello(), message)
        assert exchange(hello(), numbered(1))[1].acknowledged == 1


def test_bytes_that_are_no_message_are_refused_and_the_learner_goes_on(tmp_path):
    with learner(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        raw = channel.stream_stream("/robolearn.distributed.v1.Learner/SendRecords")
        with pytest.raises(grpc.RpcError):
            list(raw(iter([b"\xff\xff\xff\xff"]), timeout=LONG_S))
        with by_hand(server) as exchange:
            assert exchange(hello(), numbered(1))[1].acknowledged == 1


@pytest.mark.parametrize("changes", [{"actor": "../x"}, {"actor": ""}, {"about": "["}, {"schema": 0}])
def test_a_hello_that_is_none_is_refused(tmp_path, changes):
    with learner(tmp_path) as server, by_hand(server) as exchange:
        with pytest.raises(grpc.RpcError) as error:
            exchange(hello(**changes), numbered(1))
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert not (tmp_path / "learner/actors").exists()


def test_only_the_newest_connection_of_an_actor_stores(tmp_path):
    with learner(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        sent = threading.Event()

        def old() -> Iterator[Any]:
            yield hello()
            sent.wait(LONG_S)
            yield numbered(1, 666.0)

        answers = service.call(channel, "SendRecords")(old(), timeout=LONG_S)
        next(answers)
        with by_hand(server) as exchange:
            assert len(exchange(hello())) == 1
        sent.set()
        with pytest.raises(grpc.RpcError, match="another connection"):
            next(answers)
        assert list(server.read()) == []


# --- an actor's end, answered by hand ------------------------------------------------------------------------


@contextmanager
def answered(**methods: Callable[..., Any]) -> Iterator[str]:
    def nothing(messages: Any, context: Any) -> Iterator[Any]:
        yield from ()

    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((service.handlers({"SendRecords": nothing, "WatchWeights": nothing} | methods),))
    port = server.add_insecure_port(ANY)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_a_learner_that_does_not_answer_is_left_and_tried_again(tmp_path):
    calls = []

    def send_records(messages: Any, context: Any) -> Iterator[Any]:
        calls.append(1)
        next(messages)
        if len(calls) > 1:
            yield wire.FromLearner(welcome=wire.Welcome(last=0))
        for _ in messages:
            if len(calls) > 2:
                yield wire.FromLearner(acknowledged=1)

    with answered(SendRecords=send_records) as address, actor(tmp_path, address, deadline_s=0.3) as link:
        until(lambda: "has not answered for 0.3 s" in link.state().problem)  # nor welcomed
        link.send(samples.step(0.0))
        assert link.wait_acknowledged(LONG_S)  # by the third call: the second did not acknowledge
        assert len(calls) >= 3


def test_an_idle_link_is_not_taken_for_a_silent_learner(tmp_path):
    calls, now_s = [], [0.0]

    def send_records(messages: Any, context: Any) -> Iterator[Any]:
        calls.append(1)
        next(messages)
        yield wire.FromLearner(welcome=wire.Welcome(last=0))
        for number, _ in enumerate(messages, 1):
            time.sleep(2 * LOOK_S)  # so that the deadline is looked at before the answer
            yield wire.FromLearner(acknowledged=number)

    clock = {"deadline_s": 10.0, "clock": lambda: now_s[0]}
    with answered(SendRecords=send_records) as address, actor(tmp_path, address, **clock) as link:
        for _ in range(2):
            link.send(samples.step(0.0))
            assert link.wait_acknowledged(LONG_S)
            now_s[0] += 100.0
        time.sleep(2 * LOOK_S)
        assert link.state().connected and len(calls) == 1


def test_an_acknowledgement_of_what_was_never_sent_is_refused(tmp_path):
    def send_records(messages: Any, context: Any) -> Iterator[Any]:
        yield wire.FromLearner(acknowledged=7)

    with answered(SendRecords=send_records) as address, actor(tmp_path, address) as link:
        assert "acknowledges record 7; the last one is 0" in refused(link)


# --- weights -------------------------------------------------------------------------------------------------


def test_weights_arrive_between_steps(tmp_path):
    with learner(tmp_path) as server, actor(tmp_path, server.address) as link:
        assert link.newest_weights() is None
        server.publish(1, samples.weights(0.5), step=50)
        until(lambda: link.newest_weights() is not None)
        newest = link.newest_weights()
        assert newest is not None and newest is link.newest_weights()
        assert (newest.version, newest.step) == (1, 50)
        torch.testing.assert_close(newest.tensors["actor.weight"], torch.full((2, 3), 0.5))
        assert newest.tensors["count"].dtype == torch.int64 and newest.tensors["count"].shape == ()
        server.publish(2, {k: torch.from_numpy(v) for k, v in samples.weights(0.7).items()}, step=100)
        until(lambda: link.state().weights_version == 2)
        state = link.state()
        assert state.weights_step == 100 and state.weights_age_s is not None and 0 <= state.weights_age_s < LONG_S
        with actor(tmp_path, server.address, "right") as late:
            until(lambda: late.state().weights_version == 2)


def test_weights_stay_when_the_learner_goes_and_come_again_with_the_next(tmp_path):
    with learner(tmp_path) as server:
        address = server.address
        server.publish(9, samples.weights(1.0), step=90)
        link = ActorLink(address, ABOUT, tmp_path / "left")
        until(lambda: link.state().weights_version == 9)
    until(lambda: not link.state().connected)
    assert link.newest_weights().version == 9
    with learner(tmp_path, address) as server:  # from a checkpoint that is older
        server.publish(8, samples.weights(2.0), step=80)
        until(lambda: link.state().weights_version == 8)
        link.close()


def test_weights_that_come_again_by_a_new_connection_are_no_news(tmp_path):
    calls = []

    def watch_weights(said: Any, context: Any) -> Iterator[Any]:
        calls.append(1)
        yield pack(samples.weights(1.0), 1, 0, "one", ABOUT)
        if len(calls) == 3:
            yield pack(samples.weights(1.0), 1, 0, "another learner", ABOUT)

    with answered(WatchWeights=watch_weights) as address, actor(tmp_path, address) as link:
        until(lambda: link.newest_weights() is not None)
        before = link.newest_weights()
        until(lambda: len(calls) == 2)
        assert link.newest_weights() is before
        until(lambda: link.newest_weights() is not before)
        assert link.newest_weights().learner == "another learner"


def test_weights_that_no_actor_would_take_are_not_published(tmp_path):
    with learner(tmp_path) as server:
        with pytest.raises(WireError, match=r"weights 1: actor.weight is not finite"):
            server.publish(1, samples.weights(float("nan")), step=0)
        with pytest.raises(WireError, match="lacks count"):
            server.publish(1, {"actor.weight": np.zeros((2, 3), np.float32)}, step=0)
        server.publish(1, samples.weights(0.0), step=0)
        with pytest.raises(WireError, match="weights 1 do not follow 1"):
            server.publish(1, samples.weights(0.0), step=0)


def test_bad_weights_are_refused_and_the_last_good_ones_stay(tmp_path, caplog):
    def message(version: int, **change: Any) -> Any:
        out = pack(samples.weights(float(version)), version, 0, "hand", ABOUT)
        for name, value in change.items():
            setattr(out.tensors[0], name, value)
        return out

    nan = np.full((2, 3), np.nan, "<f4").tobytes()
    bad = [
        message(2, data=nan),
        message(3, data=nan[:-1]),
        message(4, name="actor.wieght"),
        message(5, data=b"\0" * 24),
    ]
    told, more = [], threading.Event()

    def watch_weights(said: Any, context: Any) -> Iterator[Any]:
        told.append(said.actor)
        yield message(1)
        yield from bad
        more.wait(LONG_S)
        yield message(6)

    caplog.set_level(logging.WARNING)
    with answered(WatchWeights=watch_weights) as address, actor(tmp_path, address) as link:
        until(lambda: caplog.text.count("weights were refused") == 4)
        assert link.state().weights_version == 1 and "weights were refused" in link.state().problem
        for says in ("not finite", "is torn", "did you mean actor.weight", "checksum differs"):
            assert says in caplog.text
        more.set()
        until(lambda: link.state().weights_version == 6)
        assert "weights" not in link.state().problem and told[0] == "left"
