"""Files that other processes make while the caller goes on."""

import os
import runpy
import time
from pathlib import Path

import pytest

from robolearn.cli._jobs import NICE, Job, Jobs
from robolearn.errors import UserError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.touch()
    return path


def script(folder: Path, text: str, source: Path) -> Job:
    """That is older than its source, and so is run."""
    path = folder / "script.py"
    path.write_text(text)
    os.utime(path, (1.0, 1.0))
    return Job(path, source, runpy.run_path)


def test_what_is_missing_or_old_is_made_and_the_rest_is_not(tmp_path, source):
    new, old, kept = (tmp_path / name for name in ("new", "old", "kept"))
    for path in (old, kept):
        path.write_text("before")
    os.utime(old, (1.0, 1.0))
    with Jobs(tmp_path / "words") as jobs:
        jobs.add(Job(path, source, Path.write_text, ["made"]) for path in (new, old, kept))
    assert [path.read_text() for path in (new, old, kept)] == ["made", "made", "before"]


def test_nothing_to_do_starts_nothing(tmp_path, source):
    with Jobs(tmp_path / "words") as jobs:
        jobs.add([Job(source, source, Path.write_text, ["made"])])
        assert jobs._pool is None


def test_it_begins_at_once_behind_the_caller_and_its_words_are_kept(tmp_path, source):
    begun, words = tmp_path / "begun", tmp_path / "words"
    text = f"import os, pathlib\nprint('hello')\npathlib.Path({str(begun)!r}).write_text(str(os.nice(0)))\n"
    with Jobs(words) as jobs:
        jobs.add([script(tmp_path, text, source)])
        until = time.monotonic() + 60.0
        while not (begun.is_file() and begun.read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        assert int(begun.read_text()) == min(19, os.nice(0) + NICE)
    assert "hello" in words.read_text()


def test_an_error_of_a_job_is_the_callers(tmp_path, source):
    with pytest.raises(FileNotFoundError, match="missing"), Jobs(tmp_path / "words") as jobs:
        jobs.add([Job(tmp_path / "missing", source, Path.unlink)])


def test_a_killed_process_is_told_with_its_file(tmp_path, source):
    job = script(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", source)
    said = r"made .*script\.py was killed; what it said is in .*words"
    with pytest.raises(UserError, match=said), Jobs(tmp_path / "words") as jobs:
        jobs.add([job])


def test_an_error_of_the_caller_is_not_waited_upon(tmp_path, source):
    made = tmp_path / "made"
    with pytest.raises(KeyboardInterrupt), Jobs(tmp_path / "words") as jobs:
        jobs.add([script(tmp_path, "import time\ntime.sleep(0.5)\n", source)] * 3)
        jobs.add([Job(made, source, Path.write_text, ["made"])])
        raise KeyboardInterrupt
    assert not made.exists()
