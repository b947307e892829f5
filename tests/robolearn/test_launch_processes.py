"""`robolearn launch` with real processes: what they print, how they end, and that none is left behind."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LAUNCH = [sys.executable, "-m", "robolearn.cli.main", "launch"]
PATIENCE_S = 60.0

STAYS = """
import signal, sys, time
heard, began = [], time.monotonic()
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
open(sys.argv[0] + ".ready", "w").close()
print("ready", flush=True)
while not heard and time.monotonic() < 120 + began:
    time.sleep(0.01)
time.sleep(0.2)
print("SIGINT", len(heard), flush=True)
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""
AFTER = """
import os, sys, time
while not os.path.exists(os.path.join(os.path.dirname(sys.argv[0]), "stays.py.ready")):
    time.sleep(0.01)
"""
STUBBORN = """
import signal, sys, time
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), lambda got, _: print("ignored", signal.Signals(got).name, flush=True))
print("ready", flush=True)
for _ in range(12_000):  # two minutes, should nobody end it
    time.sleep(0.01)
"""


class Folder:
    """A launch file and its programs."""

    def __init__(self, path: Path):
        self.path = path

    def program(self, name: str, code: str) -> str:
        """The command that runs this Python code."""
        (self.path / f"{name}.py").write_text(code)
        return f"{sys.executable} {self.path}/{name}.py"

    def file(self, *entries: str) -> Path:
        """A launch file of executables, each the inside of its braces; their names are a, b, c ..."""
        lines = [f"  - executable: {{name: {chr(97 + i)}, {entry}}}\n" for i, entry in enumerate(entries)]
        path = self.path / "t.launch.yaml"
        path.write_text("launch:\n" + "".join(lines))
        return path

    def run(self, *entries: str) -> tuple[int, str]:
        """Exit code and output, the two streams in one."""
        done = subprocess.run(
            [*LAUNCH, self.file(*entries)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE_S
        )
        return done.returncode, done.stdout.decode()

    @contextlib.contextmanager
    def started(self, *entries: str) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [*LAUNCH, self.file(*entries)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup of these tests is not its own
        )  # fmt: skip
        patience = threading.Timer(PATIENCE_S, process.kill)  # whoever reads its output then learns the end
        patience.start()
        try:
            yield process
        finally:
            patience.cancel()
            process.kill()
            process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def read_until(process: subprocess.Popen[bytes], *words: str) -> str:
    """The output up to a line with the last of the words, which all come, in any order."""
    assert process.stdout is not None
    said, missing = "", set(words)
    for line in process.stdout:
        said += line.decode()
        missing -= {word for word in missing if word in said}
        if not missing:
            return said
    raise AssertionError(f"{missing} not said:\n{said}")


def numbers(said: str) -> list[int]:
    return [int(number) for number in re.findall(r"started, process (\d+)", said)]


def gone(pid: int) -> bool:
    """True as soon as the process is; a zombie is gone."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


# --- output ------------------------------------------------------------------------------------------------


def test_every_line_carries_the_name_of_its_process(folder: Folder) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.stdout.write('no end')"
    status, said = folder.run(f"cmd: {folder.program('p', code)}", f"cmd: {folder.program('q', code)}")
    assert status == 0
    for name in "ab":
        assert [x for x in said.splitlines() if x.startswith(f"[{name}]")] == [
            f"[{name}] out", f"[{name}] err", f"[{name}] no end",
        ]  # fmt: skip


def test_bytes_that_are_no_text_are_shown_and_do_no_harm(folder: Folder) -> None:
    code = r"import os; os.write(1, b'a\xff\xc3(\x00z\r\n' + 'ö'.encode() + b'\n')"
    status, said = folder.run(f"cmd: {folder.program('p', code)}")
    assert status == 0
    assert "[a] a\\xff\\xc3(\\x00z\n[a] ö\n" in said


def test_a_line_written_in_two_parts_stays_one(folder: Folder) -> None:
    code = "import time; print('one', end=' ', flush=True); time.sleep(0.02); print('line')"
    assert "[a] one line\n" in folder.run(f"cmd: {folder.program('p', code)}")[1]


def test_a_question_is_shown_before_its_line_ends(folder: Folder) -> None:
    code = "import time; print('ready?', end='', flush=True); time.sleep(600)"
    with folder.started(f"cmd: {folder.program('p', code)}") as process:
        assert "[a] ready?" in read_until(process, "ready?")


def test_a_line_without_end_does_not_pile_up(folder: Folder) -> None:
    code = "import sys; sys.stdout.write('x' * 300_000)"
    said = folder.run(f"cmd: {folder.program('p', code)}")[1]
    assert said.count("x") >= 300_000
    assert said.count("[a] x") > 1


def test_a_reader_that_stands_still_stops_no_process(folder: Folder) -> None:
    done = folder.path / "done"
    code = f"for i in range(40_000): print('x' * 100)\nopen({str(done)!r}, 'w').close()"
    with folder.started(f"cmd: {folder.program('p', code)}") as process:
        until = time.monotonic() + PATIENCE_S
        while not done.exists() and time.monotonic() < until:
            time.sleep(0.02)
        assert done.exists()
        said = process.communicate(timeout=PATIENCE_S)[0].decode()
    assert re.search(r"^\[launch\] \d+ lines lost", said, re.MULTILINE)
    assert process.returncode == 0


def test_a_reader_that_leaves_stops_all(folder: Folder) -> None:
    chatter = folder.program("p", "import time\nwhile True: print('x'); time.sleep(0.01)")
    with folder.started(f"cmd: {chatter}") as process:
        pids = numbers(read_until(process, "[a] x"))
        assert process.stdout is not None
        process.stdout.close()
        process.wait(PATIENCE_S)
    assert all(map(gone, pids))


# --- the end of one ----------------------------------------------------------------------------------------


def test_a_required_process_that_fails_brings_the_rest_down_and_gives_its_code(folder: Folder) -> None:
    fails = folder.program("p", AFTER + "sys.exit(3)")
    status, said = folder.run(f"cmd: {folder.program('stays', STAYS)}", f"cmd: {fails}, on_exit: shutdown")
    assert status == 3
    assert "[launch] [b] died: exit code 3\n" in said
    assert "[b] was required: stopping the rest" in said
    assert "[a] SIGINT 1\n" in said


def test_a_process_that_is_killed_counts_as_failed(folder: Folder) -> None:
    dies = folder.program("p", AFTER + "os.kill(os.getpid(), 11)")
    status, said = folder.run(f"cmd: {dies}, on_exit: shutdown", f"cmd: {folder.program('stays', STAYS)}")
    assert status == 128 + signal.SIGSEGV
    assert "[a] died: ended by SIGSEGV" in said


def test_one_that_fails_and_is_not_required_leaves_the_others_and_gives_its_code(folder: Folder) -> None:
    slow = folder.program("q", "import time; time.sleep(0.8); print('whole')")
    status, said = folder.run("cmd: 'false'", f"cmd: {slow}")
    assert status == 1
    assert "[a] died: exit code 1" in said and "[b] whole" in said


def test_a_process_that_finishes_leaves_the_others(folder: Folder) -> None:
    slow = folder.program("q", "import time; time.sleep(0.8); print('whole')")
    status, said = folder.run("cmd: 'true'", f"cmd: {slow}")
    assert status == 0
    assert "[b] whole" in said


def test_a_required_process_that_finishes_stops_the_others(folder: Folder) -> None:
    ends = folder.program("p", AFTER)
    status, said = folder.run(f"cmd: {ends}, on_exit: shutdown", f"cmd: {folder.program('stays', STAYS)}")
    assert status == 0
    assert "[a] was required: stopping the rest" in said
    assert "[b] SIGINT 1" in said


def test_a_process_that_fails_while_it_is_stopped_counts(folder: Folder) -> None:
    ends = folder.program("p", AFTER)
    status, _ = folder.run(f"cmd: {ends}, on_exit: shutdown", f"cmd: {folder.program('stays', STAYS)} 7")
    assert status == 7


def test_a_program_that_cannot_run_stops_those_before_it(folder: Folder) -> None:
    broken = folder.path / "broken"
    broken.write_text("\x7fELF, or not")
    broken.chmod(0o755)
    status, said = folder.run(f"cmd: {folder.program('p', STAYS)}", f"cmd: {broken}", "cmd: echo never")
    assert status == 126
    assert "[b] cannot start: " in said
    assert "[c]" not in said
    assert all(map(gone, numbers(said)))


def test_the_children_of_a_process_end_with_it(folder: Folder) -> None:
    mother = folder.program("p", "import subprocess; print('child', subprocess.Popen(['sleep', '600']).pid)")
    status, said = folder.run(f"cmd: {mother}")
    assert status == 0
    assert gone(int(said.split("child ")[1].split()[0]))


# --- the end of all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_one_signal_stops_all(folder: Folder, number: int, code: int) -> None:
    stays = f"cmd: {folder.program('p', STAYS)}"
    with folder.started(stays, stays) as process:
        read_until(process, "[a] ready", "[b] ready")
        process.send_signal(number)
        said = process.communicate(timeout=PATIENCE_S)[0].decode()
    assert process.returncode == code
    assert "[a] SIGINT 1\n" in said
    assert "[b] SIGINT 1\n" in said


def on_terminal(folder: Folder, entry: str, keys: bytes, **env: str) -> tuple[int, str]:
    """The launch in a terminal in which `keys` are typed once it is ready."""
    path = folder.file(entry)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*LAUNCH, str(path)], {**os.environ, "NO_COLOR": "", **env})
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
        while data := os.read(terminal, 4096):
            said += data
            if b"ready" in said and keys:
                os.write(terminal, keys)
                keys = b""
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode()


def test_ctrl_c_on_a_terminal_reaches_each_process_once(folder: Folder) -> None:
    code, said = on_terminal(folder, f"cmd: {folder.program('p', STAYS)}", b"\x03")
    assert code == 130
    assert "SIGINT 1\r\n" in said


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_names_are_coloured_on_a_terminal(folder: Folder, no_color: str, coloured: bool) -> None:
    said = on_terminal(folder, "cmd: echo ready", b"", NO_COLOR=no_color)[1]
    assert ("\x1b[36m[a]\x1b[0m ready" in said) == coloured
    assert ("[a] ready" in said) != coloured


def test_stubborn_processes_get_sigterm_then_sigkill(folder: Folder) -> None:
    stubborn, waits = folder.program("p", STUBBORN), "sigterm_timeout: 0.3, sigkill_timeout: 0.3"
    with folder.started(f"cmd: {stubborn} SIGINT, {waits}", f"cmd: {stubborn} SIGINT SIGTERM, {waits}") as process:
        read_until(process, "[a] ready", "[b] ready")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE_S)[0].decode()
    assert "[a] ignored SIGINT" in said
    assert "[launch] [a] ended by SIGTERM" in said
    assert "[b] ignored SIGTERM" in said
    assert "[launch] [b] died: ended by SIGKILL" in said
    assert process.returncode == 128 + signal.SIGKILL  # it did not end as it was asked to


def test_a_second_and_a_third_ctrl_c_do_not_wait(folder: Folder) -> None:
    entry = f"cmd: {folder.program('p', STUBBORN)} SIGINT SIGTERM, sigterm_timeout: 600.0, sigkill_timeout: 600.0"
    with folder.started(entry) as process:
        read_until(process, "[a] ready")
        process.send_signal(signal.SIGINT)
        read_until(process, "[a] ignored SIGINT")
        process.send_signal(signal.SIGINT)
        read_until(process, "[a] ignored SIGTERM")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGKILL


def test_processes_end_in_order_when_the_launch_is_killed(folder: Folder) -> None:
    last_word = folder.path / "last_word"
    stays = STAYS.replace('print("SIGINT"', f"open({str(last_word)!r}, 'w').close(); print('SIGINT'")
    with folder.started(f"cmd: {folder.program('p', stays)}") as process:
        (pid,) = numbers(read_until(process, "[a] ready"))
        process.kill()
        assert gone(pid)
    assert last_word.exists()


def test_a_hang_up_that_is_ignored_stays_ignored(folder: Folder) -> None:
    path = folder.file("cmd: sleep 0.8")
    command = ["nohup", *LAUNCH, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    read_until(process, "started")
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE_S) == 0
    process.communicate()
