"""Learn while acting: an actor beside the robot and a learner, two processes, with a person who takes over at times.

usage: robolearn hil experiment=NAME [key=value ...]            both, on this machine
       robolearn hil resume=RUN [key=value ...]                 go on with a run
       robolearn hil role=learner address=HOST:PORT experiment=NAME run_dir=FOLDER [key=value ...]
       robolearn hil role=actor address=HOST:PORT experiment=NAME run_dir=OTHER [key=value ...]
       robolearn hil role=person site=SITE experiment=NAME person=late [key=value ...]     beside a twin

The actor makes the steps, tells each to the learner, and acts with the weights that came last; if the learner is gone
it acts on, and what it has to tell waits in its journal. The learner learns `algo.ratio` times for each step that came,
never more. Either may be killed at any time and is started again: no step is lost or counted twice.

A person is simulated (person=late|watchful|at_random|margin|advantage; robolearn list persons) in a simulated world,
which goes `speed` times as fast as a robot would. algo.labels says what interventions mean: hil_serl, supervised,
hg_dagger, rlif.

On a robot (site=my_arm.yaml person=nobody, beside guard and teleop; docs/teleop.md) the person is a real one, who says
success, failure and reset too; beside a twin role=person is one, by the teleop node's joystick (person=late or
at_random: no topic tells what the policy would do). Between two episodes the arm goes to its start; before that, with
reset=person, it stands until the person says that the scene is reset, and with reset=RUN a policy that was trained
backward resets it. `robolearn launch hil` starts all of it.

Shown are, over the last episodes, success, the share of the person's steps, the steps that a success takes, the updates
a step, and by how many versions the actor's weights are behind. An address that is not of this machine needs a token
(token_file=, or ROBOLEARN_TOKEN) and TLS (certificate=, key=). Tasks and algos are set as for robolearn train.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.cli import _options, _world, train
from robolearn.cli._options import option
from robolearn.cli.train import TrainCfg
from robolearn.config import ConfigError

if TYPE_CHECKING:
    from robolearn.algos.off_policy import OffPolicy
    from robolearn.distributed.access import Access
    from robolearn.env import Env
    from robolearn.hil.learner import Learner
    from robolearn.loops.interrupt import Interrupt
    from robolearn.policies.base import Policy
    from robolearn.spec import PolicySpec

log = logging.getLogger(__name__)
ROLES = ("both", "actor", "learner", "person")
ALONE = "nobody"
NOT_HERE = ("time_limit_s", "updates", "batch", "short_episodes")
FILE = "hil.yaml"
"""In a run's folder, beside config.yaml, which holds what is not of this command alone."""
RESTARTS = 20
"""Of a process that was killed, in one run of the command."""
LOOK_S, END_S = 0.2, 20.0
WELCOME_S = 10.0
"""In which a learner that is there says whether it takes the actor, before an arm moves."""
PARENT = "ROBOLEARN_PARENT"
"""Process that started this one, of role=both."""


@dataclass
class HilCfg(TrainCfg):
    role: str = option("both", "what this process is", ROLES)
    address: str = option("127.0.0.1:0", "of the learner; port 0 is a free one, for role=both")
    actor: str = option("actor", "this actor's name, another one for each")
    actors: int = option(1, "that the learner has room for")
    speed: float = option(1.0, "of a simulated world, times that of a robot; 0 for as fast as it can")
    site: str = option("", "a site file or a profile: the actor acts on that robot, through its guard")
    reward: str = option("", "of live steps, in place of the task's: a reward's folder, sparse, time_penalty")
    namespace: str = option("", "of the robot's topics")
    reset: str = option("scripted", "on a robot, before an episode: scripted, person, or a run whose policy does it")
    reset_limit_s: float = option(20.0, "that a policy resets for, at most")
    tool_mps: float = option(0.5, "role=person: of the tool at full deflection, as the teleop node has it")
    tool_radps: float = option(1.0, "the same, of its turning")
    publish_every: int = option(50, "updates between two versions of the weights")
    token_file: str = option("", "readable by its owner alone")
    certificate: str = option("", "TLS, PEM")
    key: str = option("", "of the certificate, at the learner's end")

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.check_choices(self)
        if self.actors < 1 or self.publish_every < 1 or not 0.0 <= self.speed < float("inf"):
            raise ValueError("actors and publish_every must be at least 1, speed finite and at least 0")
        if min(self.reset_limit_s, self.tool_mps, self.tool_radps) <= 0.0:
            raise ValueError("reset_limit_s, tool_mps and tool_radps must be above 0")


def help_text() -> str:
    names = "\n".join(f"  {n}" for n, path in sorted(config.experiments().items()) if "/person:" in path.read_text())
    return f"{__doc__}\noptions:\n{_options.describe(HilCfg)}\n\nexperiments with a person:\n{names}"


def main(argv: list[str]) -> int:
    _world.discover()
    cfg, folder = _read(_split(argv))
    if not hasattr(cfg.algo, "demo_share") or cfg.residual.base:
        raise ConfigError("robolearn hil learns with algo=sac or td3, without residual.base")
    given = [n for n in NOT_HERE if getattr(cfg, n) != HilCfg.__dataclass_fields__[n].default]
    if given:
        raise ConfigError(f"{', '.join(given)}: not for robolearn hil, whose length is total_steps; its batches are "
                          "settings of algo.")  # fmt: skip
    return {"both": _both, "learner": _learn, "actor": _act, "person": _accompany}[cfg.role](cfg, folder)


def _read(argv: list[str]) -> tuple[HilCfg, Path]:
    """What is asked for, and the folder of its run."""
    resume = [w.partition("=")[2] for w in argv if w.startswith("resume=")]
    words = [w for w in argv if not w.startswith("resume=")]
    if resume:
        from robolearn import runs

        folder = runs.find_run(resume[-1])
        return _load(words, folder), folder
    cfg = _load(words)
    folder = Path() if cfg.role == "person" else train.new_folder(cfg, words)
    cfg.run_dir = str(folder)
    return cfg, folder


def _split(argv: list[str]) -> list[str]:
    """What a launch file says in one argument, as several; and without an experiment that is none."""
    found = (shlex.split(w.partition("=")[2]) if w.startswith("words=") else [w] for w in argv)
    return [w for words in found for w in words if w != "experiment="]


def _load(words: list[str], run: Path | None = None) -> HilCfg:
    """Anew, or as that run was, with what else is said. On a robot the person is a real one, whoever the experiment or
    the run has; one that was asked for is refused."""
    given = {k: v for k, _, v in (w.partition("=") for w in words)}
    person, others = given.get("person"), [w for w in words if not w.startswith("person=")]
    if run is not None:
        cfg = config.reload(HilCfg, run / FILE, others, {} if person is None else {"person": person})
    else:
        real = given.get("site") and given.get("role") != "person"
        cfg = config.load(HilCfg, others if real else words)
    if not cfg.site or cfg.role == "person":
        return cfg
    if person not in (None, ALONE):
        raise ConfigError(f"person={person} is for simulated worlds; on a robot a person takes over by a device "
                          "(docs/teleop.md): person=nobody")  # fmt: skip
    alone = config.entry("person", ALONE).config
    assert alone is not None
    cfg.person = alone()
    return cfg


def _training(cfg: HilCfg) -> TrainCfg:
    """What every other command knows of a run and its bundle."""
    return TrainCfg(**{f.name: getattr(cfg, f.name) for f in fields(TrainCfg)})


def _save(cfg: HilCfg, folder: Path) -> None:
    config.save(cfg, folder / FILE)
    config.save(_training(cfg), folder / "config.yaml")


# --- both ----------------------------------------------------------------------------------------------------


def _both(cfg: HilCfg, folder: Path) -> int:
    """A process for each, which are started again when they are killed."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(cfg, folder)
    address = _free(cfg.address)
    running = {role: _started(folder, role, address) for role in ("learner", "actor")}
    left = RESTARTS
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            time.sleep(LOOK_S)
            for role, process in running.items():
                code = process.poll()
                if code is None:
                    continue
                if code < 0 and left:
                    left -= 1
                    log.warning("the %s was killed by signal %d: it is started again", role, -code)
                    running[role] = _started(folder, role, address)
                elif role == "learner" or code:
                    return abs(code)
    finally:
        _end(running)


def _started(folder: Path, role: str, address: str) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C is passed on, in the right order."""
    words = [sys.executable, "-m", "robolearn.cli.main", "hil", f"resume={folder}", f"role={role}",
             f"address={address}"]  # fmt: skip
    return subprocess.Popen(words, start_new_session=True, env={**os.environ, PARENT: str(os.getpid())})


def _end(running: dict[str, subprocess.Popen[bytes]]) -> None:
    """The actor first: what it told last is learned from, or waits in the journals."""
    for role in ("actor", "learner"):
        process = running[role]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free(address: str) -> str:
    """The same with a port that is free now, where it says 0: a learner that is started again must be found there."""
    host, _, port = address.rpartition(":")
    if port != "0":
        return address
    with socket.socket() as probe:
        probe.bind((host or "127.0.0.1", 0))
        return f"{host}:{probe.getsockname()[1]}"


# --- each ----------------------------------------------------------------------------------------------------


def _learn(cfg: HilCfg, folder: Path) -> int:
    import torch

    from robolearn.distributed.learner import LearnerServer
    from robolearn.hil import steps
    from robolearn.hil.learner import Learner
    from robolearn.loops import checkpoint

    _end_with_parent()
    torch.set_num_threads(max(1, cfg.torch_threads))
    spec = _world.spec_of(cfg.task)
    algo = _algo(cfg, spec, cfg.actors)
    if cfg.data.path:
        _show(cfg, spec, algo)
    with train.exclusive(folder):
        if PARENT not in os.environ:  # else it is there, and says role=both
            _save(cfg, folder)
        about = steps.about(_run_name(cfg), spec, algo.policy)
        state = checkpoint.read_if_any(folder / "checkpoints")
        with LearnerServer(cfg.address, about, folder / "journals", _access(cfg)) as server:
            learner = Learner(server, algo, cfg.total_steps, folder, cfg.publish_every, cfg.checkpoint_every_s, state)
            log.info("learning %s with %s on %s: step %d, run %s", cfg.task.name, cfg.algo.name, server.address,
                     algo.env_steps, folder)  # fmt: skip
            try:
                learner.run()
            except KeyboardInterrupt:
                log.info("go on with: robolearn hil resume=%s", folder)
                raise
        train.pack(_training(cfg), Learned(cfg, algo, learner), folder)  # type: ignore[arg-type]
    return 0


class Learned:
    """As `robolearn train` evaluates and packs it."""

    def __init__(self, cfg: HilCfg, algo: OffPolicy, learner: Learner):
        self.policy: Policy = algo.policy.eval()
        self.robot, self.eval_seed = config.build(cfg.task).robot, cfg.seed + 10_000
        self.steps, self.learner = algo.env_steps, learner

    def done(self) -> dict[str, Any]:
        return {"train_seconds": self.learner.counters.seconds, "train_steps": self.steps, **self.learner.shown()}

    def ended(self) -> str:
        return f"{self.steps:,} steps in {self.learner.counters.seconds:.1f} s"


def _act(cfg: HilCfg, folder: Path) -> int:
    import torch

    from robolearn.distributed.actor import ActorLink
    from robolearn.hil import steps
    from robolearn.hil.actor import Actor
    from robolearn.loops.interrupt import Interrupt

    torch.set_num_threads(1)
    _end_with_parent()
    spec = _world.spec_of(cfg.task)
    algo = _algo(cfg, spec, 1, capacity=3)  # it remembers nothing
    about = steps.about(_run_name(cfg), spec, algo.policy)
    with ActorLink(cfg.address, about, folder / f"sent_{cfg.actor}", cfg.actor, _access(cfg)) as link:
        if cfg.site:
            link.wait_connected(WELCOME_S)
        cfg.seed = _seed(cfg, link.state().last)
        algo.generator.manual_seed(cfg.seed + 1)
        interrupt = Interrupt("this step")
        with _acted_in(cfg, spec, folder, interrupt) as world, _judged(world, cfg, spec, folder) as env:
            actor = Actor(env, algo, link, 0.0 if cfg.site else cfg.speed, interrupt=interrupt)
            actor.run()
            log.info("%s made %d steps, %d of them late; %d wait for the learner", cfg.actor, actor.steps, actor.late,
                     link.state().unacknowledged)  # fmt: skip
    return 0


@contextmanager
def _acted_in(cfg: HilCfg, spec: PolicySpec, folder: Path, interrupt: Interrupt) -> Iterator[Env]:
    """A simulated world, with its simulated person, or a robot."""
    from robolearn.cli._loops.people import accompanied

    if cfg.site:
        from robolearn.cli._hil_robot import robot_env

        with robot_env(cfg, spec, lambda: interrupt.wanted) as robot:
            yield robot
        return
    world = _world.make_env(cfg.task, cfg.backend, 1, "cpu", cfg.seed, folder / "diverged")
    try:
        yield world if cfg.person.name == ALONE else accompanied(world, cfg)
    finally:
        world.close()


def _judged(world: Env, cfg: HilCfg, spec: PolicySpec, folder: Path) -> AbstractContextManager[Env]:
    if not cfg.reward:
        return nullcontext(world)
    from robolearn.cli._hil_reward import rewarded

    return rewarded(world, cfg, spec, folder)


def _accompany(cfg: HilCfg, folder: Path) -> int:
    from robolearn.cli._hil_robot import serve_person

    _end_with_parent()
    if not cfg.site or cfg.person.name == ALONE:
        raise ConfigError("role=person needs site= (of a twin) and a person, such as person=late")
    serve_person(cfg, _world.spec_of(cfg.task))
    return 0


def _algo(cfg: HilCfg, spec: PolicySpec, lanes: int, capacity: int = 0) -> OffPolicy:
    import copy

    import torch

    about = copy.copy(cfg.algo)
    about.capacity = capacity or about.capacity
    device = torch.device("cpu")
    generator = torch.Generator(device).manual_seed(cfg.seed + 1)
    algo: OffPolicy = config.build(about, spec=spec, num_envs=lanes, device=device, generator=generator)
    return algo


def _show(cfg: HilCfg, spec: PolicySpec, algo: OffPolicy) -> None:
    """Put the demonstrations into a replay of their own."""
    from robolearn.data import source
    from robolearn.data.demonstrations import replay_of

    data = cfg.data
    demos = source.open_set(data.path, spec, cfg.task.name, data.episodes, data.only_success)
    replay = algo.new_replay(demos.frames + len(demos) + 1, 1, f"what is demonstrated in {demos.root}")
    algo.learn_also_from(replay_of(demos, replay, spec))
    log.info("%d transitions of %s are demonstrations", len(replay), demos.root)


def _access(cfg: HilCfg) -> Access:
    from robolearn.distributed.access import Access

    return Access(*(Path(p) if p else None for p in (cfg.token_file, cfg.certificate, cfg.key)))


def _run_name(cfg: HilCfg) -> str:
    return cfg.run_name or f"{cfg.task.name}_{cfg.algo.name}"


def _seed(cfg: HilCfg, records: int) -> int:
    """Of an actor that has told so many records: neither another one, nor itself started again, does the same."""
    import zlib

    return zlib.crc32(f"{cfg.seed} {cfg.actor} {records}".encode()) // 4


def _end_with_parent() -> None:
    """A process of role=both ends when that is gone, however it ended."""
    parent = int(os.environ.get(PARENT, "0"))
    if not parent:
        return
    import threading

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
