"""What the result tables show: their rows, the episodes that some learn from, and the cases of evaluations."""

from __future__ import annotations

from dataclasses import dataclass

Cases = dict[str, tuple[str, ...]]
FULL_START = ("task.level_start=0",)
NO_FORCE = (*FULL_START, "task.randomize.disturbance_force_n=0", "task.randomize.disturbance_torque_nm=0")
FLIGHT: Cases = {"with force": FULL_START, "without": NO_FORCE}
FIGURE: Cases = {"figure-eight": ("task.trajectory=figure_eight",)}
TASKS = {"crazyflie_hover_rpm": FLIGHT, "crazyflie_hover": FLIGHT, "crazyflie_track": FIGURE}
"""Flight tasks, and the cases of their evaluation (overrides of `robolearn evaluate`); the baseline flies each."""

EXPERT = ("policy=expert", "noise=1", "seed=0")
DATA = {
    "peg": ("task=franka_peg_insert", "episodes=50", *EXPERT),
    "stack": ("task=franka_stack", "episodes=100", *EXPERT),
    "two_part": ("task=franka_two_part", "episodes=100", *EXPERT),
    "lift": ("task=franka_lift", "episodes=50", *EXPERT),
    "lift_hil": (
        "task=franka_lift",
        "task.reward=sparse",
        "task.success_ends=true",
        "task.own_commands=false",
        "task.decimation=24",
        "task.ee_step_m=0.05",
        "task.ee_step_rad=0.1",
        "task.episode_length_s=10",
        "policy=expert",
        "strategy=sides",
        "noise=0.3",
        "episodes=20",
        "seed=0",
    ),
    "peg_hil": (
        "task=franka_peg_insert",
        "task.own_commands=false",
        "task.decimation=48",
        "task.ee_step_m=0.04",
        "task.ee_step_rad=0.12",
        "policy=expert",
        "strategy=straight",
        "noise=0.3",
        "episodes=20",
        "seed=0",
    ),
}
"""Sets of episodes, and what `robolearn collect` is told to record them."""
SAMPLERS: Cases = {"own": (), "ddim 16": ("sampler=ddim", "steps=16"), "ddpm 100": ("sampler=ddpm",)}


@dataclass(frozen=True)
class Row:
    experiment: str
    training: tuple[str, ...] = ()
    """Overrides of the experiment."""
    name: str = ""
    """Of the folder and in the table, if not the experiment's."""
    seeds: int = 5
    episodes: int = 500
    second_episodes: int = 500
    threshold: float = 0.98
    """Of success, that seeds are counted against."""
    task: str = ""
    """One of TASKS."""
    data: str = ""
    """Of a row that learns from episodes: their set, one of DATA."""
    samplers: tuple[str, ...] = ("own",)
    """And the ways to draw its chunks, of SAMPLERS."""
    base: str = ""
    """The row whose policy is corrected, of the same seed."""
    teacher: str = ""
    """The row from whose policy's successes, of the same seed, is learned."""
    critic: str = ""
    """The row by whose critic, of seed 0, a simulated person compares actions."""
    kind: str = ""
    """Of its table, if that is not told by the rest."""

    @property
    def label(self) -> str:
        return self.name or self.experiment

    @property
    def table(self) -> str:
        return self.kind or ("imitation" if self.data else "flight" if self.task else "results")

    @property
    def cases(self) -> Cases:
        if self.table == "imitation":
            return {name: SAMPLERS[name] for name in self.samplers}
        return TASKS.get(self.task, {"": ()})


def flight(task: str, name: str = "", training: tuple[str, ...] = (), threshold: float = 0.985, seeds: int = 3) -> Row:
    return Row(f"{task}_ppo", training, name, seeds, 8192, 128, threshold, task)


def imitation(experiment: str, data: str, samplers: tuple[str, ...] = ("own",), seeds: int = 3) -> Row:
    return Row(experiment, seeds=seeds, second_episodes=200, data=data, samplers=samplers)


def corrected(experiment: str, base: str = "", data: str = "", teacher: str = "", seeds: int = 3) -> Row:
    return Row(experiment, seeds=seeds, second_episodes=50, threshold=0.95, base=base, data=data, teacher=teacher,
               kind="residual")  # fmt: skip


def helped(experiment: str, name: str = "", training: tuple[str, ...] = (), critic: str = "") -> Row:
    return Row(experiment, training, name, seeds=3, episodes=100, second_episodes=50, threshold=0.95, data=experiment,
               critic=critic, kind="people")  # fmt: skip


RPM = "crazyflie_hover_rpm"
TRUSTING = ("person.trust_after_s=900", "person.patience_s=7", "algo.target_entropy=-2")
"""Who watches for the first half of the time and then helps where an episode takes long; and less noise."""
ALONE = "person.margin=1000"
"""Nobody ever takes over."""
CLUMSY = ("person=margin", "person.noise=3")
"""Who knows when to help, but not how: alone they succeed in 15 of 40 episodes."""
ROWS = (
    Row("franka_reach_ppo"),
    Row("franka_reach_ee_ppo"),
    Row("cartpole_ppo"),
    Row("franka_lift_ppo", seeds=3, threshold=0.90),
    flight(RPM, f"{RPM} 40 s", ("total_steps=1_000_000_000", "time_limit_s=40"), seeds=5),
    flight(RPM, f"{RPM} 90 s", ("total_steps=1_000_000_000", "time_limit_s=90"), 0.990, seeds=5),
    flight("crazyflie_hover"),
    flight("crazyflie_track"),
    imitation("peg_bc", "peg"),
    imitation("peg_diffusion", "peg"),
    imitation("peg_streaming", "peg", tuple(SAMPLERS)),
    imitation("stack_diffusion", "stack", seeds=1),
    imitation("two_part_diffusion", "two_part", seeds=1),
    imitation("two_part_streaming", "two_part", seeds=1),
    corrected("peg_residual_td3", "peg_streaming", "peg"),
    corrected("peg_residual_ppo", "peg_streaming"),
    corrected("peg_rlpd", data="peg"),
    corrected("peg_finetuned", teacher="peg_streaming", seeds=1),
    corrected("peg_distilled", teacher="peg_residual_td3", seeds=1),
    corrected("two_part_residual_td3", "two_part_streaming", "two_part", seeds=1),
    corrected("reach_sac"),
    corrected("lift_rlpd", data="lift"),
    helped("lift_hil"),
    helped("lift_hil", "lift_hil, trusting", TRUSTING),
    helped("lift_hil", "lift_hil hil_serl", ("algo.labels=hil_serl",)),
    helped("lift_hil", "lift_hil hg_dagger", ("algo.labels=hg_dagger",)),
    helped("lift_hil", "lift_hil RLPD alone", ("algo.labels=hil_serl", ALONE)),
    helped("lift_hil", "lift_hil BC", ("algo.labels=hg_dagger", ALONE)),
    helped("lift_hil", "lift_hil rlif, clumsy", ("algo.labels=rlif", *CLUMSY), critic="lift_hil"),
    helped("lift_hil", "lift_hil hg_dagger, clumsy", ("algo.labels=hg_dagger", *CLUMSY), critic="lift_hil"),
    helped("peg_hil"),
)
