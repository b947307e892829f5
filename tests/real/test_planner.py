"""Chunks planned beside the control loop: on a clock and a thread of the test's own, and on real ones."""

import threading
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as NotInTime

import pytest
import torch
from chunk_samples import chunk_spec, diffusion
from torch import Tensor

from real.planner import PlanError, Planner, worker
from robolearn.loops.threads import one_thread
from robolearn.policies.chunked import ChunkedPolicy

PERIOD_S = 0.05


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


class Teller(ChunkedPolicy):
    """Its actions are (newest observation, place in the chunk), each / 1000."""

    kind = ""

    def loss(self, windows, generator=None) -> Tensor:
        raise NotImplementedError

    def plan(self, obs: dict[str, Tensor], rows: Tensor) -> Tensor:
        newest = obs["policy"][:, -1, :1].expand(-1, self.horizon)
        return torch.stack((newest, torch.arange(float(self.horizon))[None]), dim=-1) / 1000.0


class Short(Teller):
    """As the streaming sampler: only what is executed is clean."""

    @property
    def usable(self) -> int:
        return self.execute


class Approach(Teller):
    """Sees how far something is away, and plans to go a tenth of what is left in each period; every action moves it."""

    def plan(self, obs: dict[str, Tensor], rows: Tensor) -> Tensor:
        actions = 0.1 * obs["policy"][:, -1, :1] * 0.9 ** torch.arange(float(self.horizon))
        return actions[..., None].expand(-1, -1, 2)


class Broken(Teller):
    broken = False

    def plan(self, obs: dict[str, Tensor], rows: Tensor) -> Tensor:
        if self.broken:
            raise RuntimeError("out of memory")
        return super().plan(obs, rows)


class SlowThread(Executor):
    """A thread on a clock of its own, `now`: a job takes `seconds`, jobs run one after the other."""

    def __init__(self, seconds: float = 0.0):
        self.now, self.seconds, self.jobs = 0.0, seconds, []
        self.free = 0.0

    def clock(self) -> float:
        return self.now

    def submit(self, job, *words):
        future = Expected(self)
        self.free = max(self.free, self.now) + self.seconds
        self.jobs.append((self.free, future, job, words))
        self.until(self.now)
        return future

    def until(self, time_s: float) -> None:
        """Time passes, and jobs come to their end."""
        while self.jobs and self.jobs[0][0] <= time_s + 1e-9:
            due, future, job, words = self.jobs.pop(0)
            self.now = max(self.now, due)
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job(*words))
                except Exception as error:
                    future.set_exception(error)
        self.now = max(self.now, time_s)


class Expected(Future):
    """Whoever waits for it lets the time pass."""

    def __init__(self, thread: SlowThread):
        super().__init__()
        self._thread = thread

    def result(self, timeout=None):
        self._thread.until(self._thread.now + (1e9 if timeout is None else timeout))
        return super().result(0)


def teller(horizon: int = 16, execute: int = 8, kind: type[Teller] = Teller) -> Teller:
    spec = chunk_spec(horizon, execute, state=1)
    config = {"observation_steps": 2}
    return kind(spec, config)


def planner_of(policy: ChunkedPolicy, seconds: float, **how) -> tuple[Planner, SlowThread]:
    """At work: it knows how long planning takes."""
    thread = SlowThread(seconds)
    planner = Planner(policy, PERIOD_S, thread, thread.clock, **how)
    planner.warm_up()
    planner.reset()
    return planner, thread


def drive(planner: Planner, thread: SlowThread, periods: int, first: int = 0) -> list[tuple[int, int] | None]:
    """What was run in each period: (newest observation seen, place in the chunk). The observation is the period."""
    run: list[tuple[int, int] | None] = []
    began = thread.now
    for k in range(periods):
        thread.until(began + k * PERIOD_S)
        action = planner.act({"policy": torch.tensor([[float(first + k)]])})
        assert thread.now <= began + (k + 0.5) * PERIOD_S + 1e-6  # half a period is all it waits
        run.append(None if action is None else tuple((1000.0 * action[0]).round().int().tolist()))
    return run


def moments(run) -> list[int | None]:
    """The period that each action was meant for."""
    return [None if a is None else sum(a) for a in run]


@pytest.mark.parametrize(
    "sampler",
    [{"name": "ddpm"}, {"name": "ddim", "steps": 4}, {"name": "streaming", "steps": 4}, {"name": "flow", "steps": 3}],
    ids=lambda s: s["name"],
)
def test_actions_are_those_of_act_bit_by_bit_where_planning_is_quick(sampler):
    def run(quick: bool) -> Tensor:
        torch.manual_seed(0)
        policy = diffusion(chunk_spec(8, 4), sampler).eval()
        planner, _ = planner_of(policy, 0.0)
        torch.manual_seed(1)
        actions = []
        for k in range(14):
            if k == 6:
                planner.reset()  # of the policy too
            obs = {"policy": torch.full((1, 3), k / 14.0)}
            with torch.no_grad():
                actions.append(planner.act(obs) if quick else policy.act(obs))
        return torch.cat(actions)

    assert torch.equal(run(True), run(False))


@pytest.mark.parametrize(("seconds", "lead"), [(0.012, 0), (0.013, 1), (0.04, 1), (0.05, 2), (0.12, 3), (0.3, 8)])
def test_slow_planning_leaves_no_gap_and_runs_no_action_of_a_period_that_has_passed(seconds, lead):
    planner, thread = planner_of(teller(), seconds)
    assert planner.lead == lead and not planner.warning()
    run = drive(planner, thread, 60)
    begin = next(k for k, a in enumerate(run) if a is not None)
    assert begin <= lead and None not in run[begin:]
    assert moments(run[begin : begin + 8]) == list(range(8))  # it stood, and begins when it can
    assert moments(run[begin + 8 :]) == list(range(begin + 8, 60))
    for border in range(begin + 8, 60, 8):
        assert {newest for newest, _ in run[border : border + 8]} == {border - lead}
    assert planner.counts["chunks late"] == planner.counts["periods without an action"] == 0


def test_a_late_chunk_is_bridged_by_the_last_ones_own_actions():
    planner, thread = planner_of(teller(), 0.04)
    run = drive(planner, thread, 12)
    thread.seconds = 0.21  # asked in period 16, for 17, there in 21
    run += drive(planner, thread, 24, first=12)
    assert moments(run[9:]) == list(range(9, 36))
    assert [newest for newest, _ in run[17:25]] == [8] * 4 + [16] * 4
    assert planner.counts["chunks late"] == 2 and planner.counts["periods without an action"] == 0  # the next one too
    assert planner.lead == 6  # from now on


def test_without_actions_nothing_is_proposed_until_the_chunk_is_there():
    planner, thread = planner_of(teller(horizon=8), 0.0)
    run = drive(planner, thread, 12)
    thread.seconds = 0.21
    run += drive(planner, thread, 16, first=12)
    assert moments(run[:16]) == list(range(16))
    assert run[16:20] == [None] * 4 and moments(run[20:24]) == list(range(20, 24))  # its first four have passed
    assert planner.counts["chunks late"] >= 1 and planner.counts["periods without an action"] >= 4


@pytest.mark.parametrize(("seconds", "blend"), [(0.0, 0), (0.05, 0), (0.12, 0), (0.12, 2)])
def test_at_a_border_the_motion_goes_on_as_inside_of_a_chunk(seconds, blend):
    planner, thread = planner_of(teller(kind=Approach), seconds, blend=blend)
    left, moved, began = 1.0, [], thread.now
    for k in range(60):
        thread.until(began + k * PERIOD_S)
        action = planner.act({"policy": torch.tensor([[left]])})
        if action is not None or moved:
            moved.append(float(action[0, 0]))
            left -= moved[-1]
    assert torch.tensor(moved).allclose(0.1 * 0.9 ** torch.arange(float(len(moved))), atol=1e-6)


def test_a_chunk_that_was_planned_before_a_reset_is_never_run():
    planner, thread = planner_of(teller(), 0.12)
    drive(planner, thread, 9)  # the next chunk is being planned
    assert thread.jobs
    planner.reset()
    assert all(future.cancelled() for _, future, *_ in thread.jobs)  # the next one need not wait for it
    run = drive(planner, thread, 30, first=500)
    seen = {a[0] for a in run if a is not None}
    assert min(seen) == 500 and run[-1] is not None


def test_what_fails_in_the_thread_is_told_and_another_episode_can_begin():
    policy = teller(kind=Broken)
    planner, thread = planner_of(policy, 0.04)
    drive(planner, thread, 6)
    planner._drawer.broken = True
    with pytest.raises(PlanError, match="RuntimeError: out of memory"):
        drive(planner, thread, 6, first=6)
    planner._drawer.broken = False
    planner.reset()
    assert drive(planner, thread, 10)[-1] is not None


def test_planning_leaves_the_histories_alone():
    """An episode's first chunk resets what the thread remembers, not what the loop has seen."""
    planner, thread = planner_of(teller(), 0.0)
    drive(planner, thread, 2)
    assert planner.policy.history()["policy"][0, :, 0].tolist() == [0.0, 1.0]


def test_the_first_chunk_of_an_episode_which_takes_longer_is_no_measure_of_the_others():
    planner, thread = planner_of(teller(), 0.04)
    thread.seconds = 0.3
    drive(planner, thread, 8)
    assert planner.counts["chunks planned"] == 1 and planner.lead == 1


@pytest.mark.parametrize("fails", [False, True])
def test_a_chunk_that_comes_at_the_very_end_of_the_wait_is_there(fails):
    class Close(Future):
        def result(self, timeout=None):
            if not self.done():
                self.set_exception(TimeoutError("of the policy")) if fails else self.set_result((torch.ones(8, 2), 0.0))
                raise NotInTime
            return super().result(timeout)

    class Straight(Executor):
        def submit(self, job, *words):
            return Close()

    planner = Planner(teller(horizon=8), PERIOD_S, Straight())
    observation = {"policy": torch.zeros(1, 1)}
    if fails:
        with pytest.raises(PlanError, match="TimeoutError: of the policy"):
            planner.act(observation)
    else:
        assert planner.act(observation).equal(torch.ones(1, 2))


def test_chunks_without_room_are_run_whole_and_late_and_a_warning_says_so():
    planner, thread = planner_of(teller(kind=Short), 0.06)
    assert planner.lead == planner.behind == 2 and "all are run 2 periods late" in planner.warning()
    run = drive(planner, thread, 40)
    begin = next(k for k, a in enumerate(run) if a is not None)
    assert [a[1] for a in run[begin:]] == [k % 8 for k in range(40 - begin)]
    assert [a[0] for a in run[begin + 8 :: 8]] == [k - 2 for k in range(begin + 8, 40, 8)]
    thread.seconds = 0.5
    run = [a[1] for a in drive(planner, thread, 60, first=40) if a]
    assert max(run) == 7  # not even to bridge a gap
    thread.seconds = 0.06
    run += [a[1] for a in drive(planner, thread, 40, first=100) if a]
    borders = [k for k in range(1, len(run)) if run[k] <= run[k - 1]]
    assert len(borders) > 5 and {run[k - 1] for k in borders} == {7}  # to the end, however late they are


def test_planning_that_takes_longer_than_a_chunk_lasts_is_named():
    planner, _ = planner_of(teller(execute=2), 0.11)
    assert planner.lead == 2 and "fewer steps of the sampler" in planner.warning()
    assert "stop again and again" in planner.warning(0.5)
    assert "the guard waits 100 ms" in planner.warning(0.1)


def test_the_streaming_buffer_advances_by_what_is_executed():
    torch.manual_seed(0)
    policy = diffusion(chunk_spec(8, 4), {"name": "streaming", "steps": 4}).eval()
    planner, thread = planner_of(policy, 0.04)
    observations = torch.rand(40, 1, 3)
    torch.manual_seed(1)
    actions, began = [], thread.now
    for k in range(40):
        thread.until(began + k * PERIOD_S)
        actions.append(planner.act({"policy": observations[k]}))
    begin = next(k for k, a in enumerate(actions) if a is not None)
    torch.manual_seed(1)
    planned = {0: 0} | {k - planner.lead: k for k in range(begin + 4, 40, 4)}
    policy.reset(torch.ones(1, dtype=torch.bool))
    with torch.no_grad():
        for k in range(40):
            policy.observe({"policy": observations[k]})
            if k in planned:
                start = planned[k] or begin
                chunk = policy.chunk(torch.zeros(1, dtype=torch.long))[0, :4]
                run = torch.cat(actions[start : start + 4])
                assert torch.equal(run, chunk[: len(run)])


def test_a_chunk_fades_into_the_next_one_where_that_is_asked_for():
    planner, thread = planner_of(teller(), 0.0, blend=1)
    run = drive(planner, thread, 24)
    assert run[8] == (4, 4)  # half of (0, 8), half of (8, 0)
    assert run[:8] == [(0, k) for k in range(8)] and run[9:16] == [(8, k) for k in range(1, 8)]


def test_a_thread_of_its_own_plans_while_the_loop_goes_on():
    class Waits(Teller):
        go = threading.Event()

        def plan(self, obs: dict[str, Tensor], rows: Tensor) -> Tensor:
            assert threading.current_thread() is not threading.main_thread()
            assert self.go.wait(20.0)
            return super().plan(obs, rows)

    policy = teller(kind=Waits)
    planner = Planner(policy, 0.01, worker())
    observation = {"policy": torch.zeros(1, 1)}
    assert planner.act(observation) is None
    policy.go.set()
    while planner.act(observation) is None:
        pass
    assert planner.counts["chunks planned"] == 1
    planner.close()
