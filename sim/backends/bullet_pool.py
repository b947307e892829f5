"""The processes of the PyBullet backend: started, talked to, and missed when they die.

Every number lies in one anonymous block of memory that parent and workers map (it has no name, so nothing is left
however a process ends); a period is one short message to each worker and one back. Workers are fresh interpreters:
they inherit no threads, run no script of the user's and import no torch.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import numpy as np

from robolearn.errors import ConfigError, UserError
from robolearn.memory import SPARE, available_bytes
from sim.backends.bullet_plan import Layout, Plan, message

START = "import sys; sys.path[:] = {path!r}; from sim.backends.bullet_worker import main; main()"
GRACE_S = 1.0


class WorkerDiedError(UserError):
    """A worker process ended by itself; its environments are lost."""


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    said: Any
    """File with what it printed."""
    first: int
    count: int


class Pool:
    """`num_envs` environments of `plan`, spread evenly over `workers` processes; `rows` (num_envs, W) float64."""

    def __init__(self, plan: Plan, num_envs: int, workers: int):
        self.plan, self.layout = plan, Layout(plan)
        memory = os.memfd_create("environments")
        os.ftruncate(memory, max(1, num_envs * self.layout.width) * 8)
        self.memory, self.num_envs = memory, num_envs
        self.rows = np.frombuffer(mmap.mmap(memory, 0), dtype=np.float64).reshape(num_envs, -1)
        self.workers: list[_Worker] = []
        self.painter: _Worker | None = None
        self._closer = weakref.finalize(self, _end, self.workers, memory)
        edges = np.linspace(0, num_envs, workers + 1).astype(int).tolist()
        try:
            for first, stop in itertools.pairwise(edges):
                self._start(plan, first, stop - first)
            self.about = self._build()
        except BaseException:
            self.close()
            raise

    def _start(self, plan: Plan, first: int, count: int) -> _Worker:
        ours, theirs = socket.socketpair()
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", START.format(path=sys.path), str(theirs.fileno()), str(self.memory)],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment,
                pass_fds=(theirs.fileno(), self.memory), start_new_session=True,  # the keyboard is the parent's
            )  # fmt: skip
        worker = _Worker(process, Connection(ours.detach()), said, first, count)
        self.workers.append(worker)
        about = {"num_envs": self.num_envs, "first": first, "count": count}
        self._send(worker, json.dumps(about).encode())
        self._send(worker, plan.to_json().encode())
        return worker

    def _build(self) -> dict[str, Any]:
        """One environment in each worker, then, if the memory is there, the others."""
        about = self.ask(message("first"))[0]
        fit = int(SPARE * available_bytes() / max(about["bytes"], 1)) + len(self.workers)
        if self.num_envs > fit:
            raise ConfigError(
                f"{self.num_envs} environments do not fit: one takes {about['bytes'] / 2**20:.0f} MiB in PyBullet and "
                f"there is room for {fit} here; set num_envs={fit} or less (an evaluation: fewer episodes at once "
                "take longer and count the same), or free memory"
            )
        self.ask(message("rest"))
        return about

    # --- talking --------------------------------------------------------------------------------------------

    def ask(self, request: bytes) -> list[dict[str, Any]]:
        """Send to all workers and wait for all their answers. Raises WorkerDiedError, or what a worker refused."""
        if not self.workers:
            raise WorkerDiedError("the PyBullet workers were ended")
        workers = [w for w in self.workers if w is not self.painter]
        try:
            for worker in workers:
                self._send(worker, request)
            replies = self._replies(workers)
        except BaseException:  # a Ctrl-C: answers that are still to come would be taken for those of the next request
            self.close()
            raise
        return [self._read(reply) for reply in replies]

    def _replies(self, workers: list[_Worker]) -> list[bytes]:
        replies: dict[int, bytes] = {}
        while len(replies) < len(workers):
            waiting = [w for w in workers if w.first not in replies]
            ready = wait([w.connection for w in waiting])
            replies |= {w.first: self._receive(w) for w in waiting if w.connection in ready}
        return [replies[w.first] for w in workers]

    def paint(self, plan: Plan, **picture: Any) -> bytes:
        """A picture, by a worker that has no environments and is started for the first one."""
        if self.painter is None:
            self.painter = self._start(plan, 0, 0)
        try:
            self._send(self.painter, message("paint", **picture))
            reply = self._receive(self.painter)
        except BaseException:  # as in `ask`
            self.close()
            raise
        if len(reply) != 3 * picture["width"] * picture["height"]:
            self._read(reply)
        return reply

    def _send(self, worker: _Worker, request: bytes) -> None:
        try:
            worker.connection.send_bytes(request)
        except OSError:
            self._mourn(worker)

    def _receive(self, worker: _Worker) -> bytes:
        try:
            return worker.connection.recv_bytes()
        except (EOFError, OSError):
            self._mourn(worker)

    def _read(self, reply: bytes) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(reply)
        if content.pop("kind") == "refused":
            raise ConfigError(content["text"])
        return content

    def _mourn(self, worker: _Worker) -> NoReturn:
        """End the others and say which died, and of what."""
        number, code = self.workers.index(worker), _code(worker.process)
        worker.said.seek(0)
        said = worker.said.read().decode(errors="replace").strip().splitlines()
        what = "the painter" if worker is self.painter else (
            f"worker {number} (environments {worker.first} to {worker.first + worker.count - 1})"
        )  # fmt: skip
        last = f"; it said: {said[-1]}" if code > 0 and said else ""
        self.close()
        raise WorkerDiedError(f"PyBullet: {what} {_fate(code)}{last}; the other workers were ended")

    def close(self) -> None:
        self._closer()


class Alone:
    """A pool without processes: for one robot in real time, where the way to another process and back costs more than
    the step."""

    def __init__(self, plan: Plan, num_envs: int):
        from sim.backends.bullet_worker import Worker

        self.plan, self.layout, self.num_envs = plan, Layout(plan), num_envs
        self.rows = np.zeros((num_envs, max(1, self.layout.width)))
        self._worker = Worker(plan, self.rows, 0, num_envs)
        self.about = self._worker.first()
        self._worker.rest()

    def ask(self, request: bytes) -> list[dict[str, Any]]:
        content: dict[str, Any] = json.loads(request)
        self._worker.handle(content.pop("kind"), content)
        return []

    def paint(self, plan: Plan, **picture: Any) -> bytes:
        return self._worker.handle("paint", picture)

    def close(self) -> None:
        for world in self._worker.worlds:
            world.close()
        self._worker.worlds.clear()


def _end(workers: list[_Worker], memory: int) -> None:
    """Close the connections, upon which workers end, and wait for them."""
    for worker in workers:
        worker.connection.close()
    for worker in workers:
        try:
            worker.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.said.close()
    workers.clear()
    os.close(memory)


def _code(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _fate(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    names = {s.value: s.name for s in signal.Signals}
    reason = ", memory may have run out" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code} ({names.get(-code, 'unknown')}{reason})"
