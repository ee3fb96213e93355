"""Coroutine, without a loop and without Jupyter."""

import asyncio
import threading
import time

import greenlet
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import opencoro_ipy as oc
from opencoro_ipy.states import TERMINAL, TRANSITIONS


def dead_loop(suspender, arg):
    while True:
        pass


def test_the_seeds_example_a_dead_loop_is_preempted_again_and_again():
    co = oc.co(dead_loop)
    for n in range(1, 6):
        assert co.resume() == oc.Suspended(None, 0)
        assert co.state == oc.Suspended(None, 0)
        assert co.preemptions == n
    assert co.cpu_s > 0
    co.close()
    assert co.state == oc.Cancelled()


def test_values_go_in_and_out():
    def body(suspender, arg):
        got = suspender.suspend_with(arg + 1)
        assert oc.Suspender.current() is suspender
        return got * 2

    co = oc.Coroutine(body, name="n")
    assert co.resume(1) == oc.Suspended(2, 0)
    assert co.resume(21) == oc.Complete(42)
    assert oc.Suspender.current() is None
    with pytest.raises(oc.StateError):
        co.resume()


def test_delay_is_not_resumed_early():
    co = oc.co(lambda s, a: s.delay(0.05))
    state = co.resume()
    assert state.until > time.monotonic_ns()
    assert co.resume() is state
    while time.monotonic_ns() < state.until:
        pass
    assert co.resume() == oc.Complete(None)


def test_an_exception_is_the_error_state():
    co = oc.co(lambda s, a: 1 / 0)
    state = co.resume()
    assert isinstance(state, oc.Error) and isinstance(state.exception, ZeroDivisionError)


def test_cancel_runs_finally_blocks():
    seen = []

    def body(suspender, arg):
        try:
            dead_loop(None, None)
        finally:
            seen.append("finally")

    co = oc.co(body)
    co.resume()
    co.cancel()
    assert co.resume() == oc.Cancelled()
    assert seen == ["finally"]


def test_close_abandons_what_swallows_everything():
    def body(suspender, arg):
        while True:
            try:
                dead_loop(None, None)
            except BaseException:
                pass

    co = oc.Coroutine(body, slice_s=0.001)
    co.resume()
    co.close()
    assert co.state == oc.Cancelled()


def test_a_coroutine_resumes_another_and_gets_it_back_when_preempted():
    def outer(suspender, arg):
        inner = oc.Coroutine(dead_loop, slice_s=0.002)
        states = [inner.resume() for _ in range(3)]
        inner.close()
        return states

    co = oc.Coroutine(outer, slice_s=10)
    state = co.resume()
    while isinstance(state, oc.Suspended):
        state = co.resume()
    assert state == oc.Complete([oc.Suspended(None, 0)] * 3)


def test_no_preempt_defers_and_the_request_is_not_lost():
    def body(suspender, arg):
        with oc.no_preempt():
            end = time.monotonic() + 0.05
            while time.monotonic() < end:
                pass
            before = co.preemptions
        for _ in range(1000):
            pass
        return before

    deferred = oc.Monitor.stats()["deferred"]["no_preempt"]
    co = oc.Coroutine(body, slice_s=0.005)
    assert co.resume() == oc.Suspended(None, 0)
    assert co.resume() == oc.Complete(0)
    assert oc.Monitor.stats()["deferred"]["no_preempt"] > deferred


def test_another_thread_gets_a_clear_error():
    caught = []

    def other():
        try:
            oc.co(dead_loop).resume()
        except oc.MonitorError as e:
            caught.append(str(e))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(caught) == 1 and "main thread" in caught[0]


@pytest.mark.parametrize("thrown, state", [(None, oc.Cancelled), (KeyboardInterrupt, oc.Error)])
def test_what_is_thrown_at_the_very_edge_of_a_coroutine_still_ends_it(thrown, state):
    """Preempted before its first line or after its last, outside of every ``try`` of ours."""
    co = oc.co(lambda s, a: a)
    co._greenlet.run = lambda arg: greenlet.getcurrent().parent.switch(greenlet.getcurrent())
    assert co.resume() == oc.Suspended(None, 0)
    if thrown is None:
        co.close()
    else:
        co.throw(thrown())
        co.resume()
    assert isinstance(co.state, state)


def test_three_hundred_starts_and_stops_leave_no_thread():
    before = threading.active_count()
    for i in range(300):
        co = oc.co(lambda s, a: a)
        co.resume(i)
        while not co.done:  # preempted, on a busy machine
            co.resume()
        assert co.state == oc.Complete(i)
    assert threading.active_count() == before
    assert not oc.Monitor.running()


def test_listeners_hear_every_change_and_one_that_raises_is_dropped():
    class Recorder(oc.Listener):
        def __init__(self):
            self.events = []

        def on_state_changed(self, co, old, new, reason):
            self.events.append((type(old).__name__, type(new).__name__, reason))

    class Bad(oc.Listener):
        def on_running(self, co, old, new, reason):
            raise ValueError

    recorder, bad = Recorder(), Bad()
    oc.add_listener(bad)
    oc.add_listener(recorder)
    try:
        co = oc.co(lambda s, a: s.suspend_with(1))
        co.resume()
        co.resume()
    finally:
        oc.remove_listener(recorder)
    assert recorder.events == [
        ("Ready", "Running", "started"), ("Running", "Suspended", "yielded"),
        ("Suspended", "Running", "resumed"), ("Running", "Complete", "finished")]


def test_ten_thousand_preemptions_give_right_results():
    def work(suspender, arg):
        x = 0
        for i in range(400_000):
            x = (x * 31 + i) & 0xFFFFFFFF
        return x

    want = work(None, None)
    total = 0
    while total < 10_000:
        cos = [oc.Coroutine(work, slice_s=0.0001) for _ in range(5)]
        while any(not co.done for co in cos):
            for co in cos:
                if not co.done:
                    co.resume()
        assert [co.state for co in cos] == [oc.Complete(want)] * 5
        total += sum(co.preemptions for co in cos)


def test_a_check_is_cheap():
    from opencoro_ipy.monitor import percentile_ns

    co = oc.Coroutine(dead_loop, slice_s=0.0005)
    for _ in range(200):
        co.resume()
    co.close()
    assert percentile_ns(oc.Monitor.stats()["check_ns"], 0.5) < 25_000


class Walk(RuleBasedStateMachine):
    """Resume, cancel, throw and close in any order: only transitions of the table happen."""

    def __init__(self):
        super().__init__()

        def body(suspender, arg):
            while arg != "end":
                arg = suspender.suspend_with(arg)
                if arg == "spin":
                    while True:
                        pass
                if arg == "fail":
                    raise ValueError
            return "ended"

        self.co = oc.Coroutine(body, slice_s=0.0005)
        self.last = type(self.co.state)

    @precondition(lambda self: not self.co.done)
    @rule(arg=st.sampled_from(["x", "spin", "fail", "end"]))
    def resume(self, arg):
        self.co.resume(arg)

    @precondition(lambda self: not self.co.done)
    @rule()
    def cancel(self):
        self.co.cancel()

    @rule()
    def close(self):
        self.co.close()
        assert self.co.done

    @precondition(lambda self: self.co.done)
    @rule()
    def resume_after_the_end(self):
        with pytest.raises(oc.StateError):
            self.co.resume()

    @invariant()
    def only_known_states(self):
        assert type(self.co.state) in TRANSITIONS
        if self.last in TERMINAL:
            assert type(self.co.state) is self.last
        self.last = type(self.co.state)

    def teardown(self):
        self.co.close()


TestWalk = Walk.TestCase
TestWalk.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


def test_cancelled_error_of_the_users_own_is_an_error():
    def body(suspender, arg):
        raise asyncio.CancelledError

    assert isinstance(oc.co(body).resume(), oc.Error)
