"""A journal survives a kill at any byte, and says what it lost."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import threading
import time

import pytest

from robolearn.distributed.frames import HEADER, MAGIC, frame
from robolearn.distributed.journal import Cursor, Journal, JournalError

SMALL_MB = 200 / 1024**2
"""A few frames to a segment."""


def payload(number: int) -> bytes:
    return bytes([number % 251]) * (number % 37)


def fill(folder, numbers, **how) -> None:
    with Journal(folder, **how) as journal:
        for number in numbers:
            assert journal.append(payload(number)) == number


def read(journal: Journal, after: int = 0) -> list[tuple[int, bytes]]:
    cursor = Cursor(journal, after)
    return list(iter(cursor.read, None))


def written(numbers) -> list[tuple[int, bytes]]:
    return [(n, payload(n)) for n in numbers]


def test_a_frame_is_what_the_format_says():
    # CRC-32 of 03000000 0500000000000000 616263, little-endian, by another implementation (zlib's table written out).
    data = bytes.fromhex("03000000 0500000000000000 616263".replace(" ", ""))
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    assert frame(5, b"abc") == b"\x03\0\0\0" + (crc ^ 0xFFFFFFFF).to_bytes(4, "little") + b"\x05" + b"\0" * 7 + b"abc"


@pytest.mark.parametrize("fsync", ["record", "batch", "never"])
def test_what_was_appended_is_there_after_opening_again(tmp_path, fsync):
    fill(tmp_path, range(1, 41), segment_mb=SMALL_MB, fsync=fsync)
    fill(tmp_path, range(41, 61), segment_mb=SMALL_MB, fsync=fsync)
    with Journal(tmp_path, SMALL_MB, fsync) as journal:
        assert (journal.first, journal.last, journal.lost_bytes) == (1, 60, 0)
        assert read(journal) == written(range(1, 61))
        assert len(list(tmp_path.glob("*.journal"))) > 5
        for after in (0, 1, 17, 59, 60):
            assert read(journal, after) == written(range(after + 1, 61))


def test_a_journal_cut_at_every_byte_keeps_the_whole_frames(tmp_path):
    fill(tmp_path, range(1, 9))
    path = tmp_path / f"{1:020d}.journal"
    whole = path.read_bytes()
    ends = [len(MAGIC)]
    for number in range(1, 9):
        ends.append(ends[-1] + HEADER.size + len(payload(number)))
    assert ends[-1] == len(whole)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends[1:])
        with Journal(tmp_path, fsync="never") as journal:
            assert journal.last == kept
            assert journal.lost_bytes == (cut - ends[kept] if cut >= len(MAGIC) else 0)
            assert journal.append(payload(kept + 1)) == kept + 1
            assert read(journal) == written(range(1, kept + 2))


def test_every_flipped_byte_of_the_tail_is_noticed(tmp_path, caplog):
    fill(tmp_path, range(1, 5))
    path = tmp_path / f"{1:020d}.journal"
    whole = path.read_bytes()
    start = len(whole) - HEADER.size - len(payload(4))
    for at in range(start, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        caplog.clear()
        with Journal(tmp_path, fsync="never") as journal:
            assert (journal.last, journal.lost_bytes) == (3, len(whole) - start)
        assert f"the last {len(whole) - start} bytes, after record 3, were cut off" in caplog.text


@pytest.mark.parametrize("size", range(len(MAGIC) + 1))
def test_a_segment_killed_while_it_was_begun_goes_on(tmp_path, size):
    fill(tmp_path, range(1, 41), segment_mb=SMALL_MB)
    (tmp_path / f"{41:020d}.journal").write_bytes(MAGIC[:size])
    fill(tmp_path, range(41, 44), segment_mb=SMALL_MB)
    with Journal(tmp_path) as journal:
        assert read(journal) == written(range(1, 44))


def test_dropping_keeps_every_record_past_the_number_and_no_segment_more(tmp_path):
    for until in range(41):
        folder = tmp_path / str(until)
        fill(folder, range(1, 41), segment_mb=SMALL_MB, fsync="never")
        starts = sorted(int(p.stem) for p in folder.glob("*.journal"))
        with Journal(folder, SMALL_MB) as journal:
            journal.drop(until)
            assert journal.first == max(s for s in starts if s <= until + 1)
            assert sorted(int(p.stem) for p in folder.glob("*.journal"))[0] == journal.first
            assert read(journal, until) == written(range(until + 1, 41))


def test_numbers_go_on_after_all_was_dropped(tmp_path):
    fill(tmp_path, range(1, 41), segment_mb=SMALL_MB)
    with Journal(tmp_path, SMALL_MB) as journal:
        journal.drop(40)
        assert len(list(tmp_path.glob("*.journal"))) == 1
    fill(tmp_path, range(41, 50), segment_mb=SMALL_MB)


def test_a_number_out_of_turn_is_cut(tmp_path):
    fill(tmp_path, range(1, 4))
    with (tmp_path / f"{1:020d}.journal").open("ab") as file:
        file.write(frame(5, b"") + frame(4, b""))
    with Journal(tmp_path) as journal:
        assert (journal.last, journal.lost_bytes) == (3, 2 * HEADER.size)


def test_corruption_in_the_middle_is_an_error_that_names_the_file(tmp_path):
    fill(tmp_path, range(1, 41), segment_mb=SMALL_MB)
    path = sorted(tmp_path.glob("*.journal"))[1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with Journal(tmp_path, SMALL_MB) as journal, pytest.raises(JournalError, match=path.name):
        read(journal)


def test_a_missing_segment_is_an_error(tmp_path):
    fill(tmp_path, range(1, 41), segment_mb=SMALL_MB)
    sorted(tmp_path.glob("*.journal"))[1].unlink()
    with Journal(tmp_path, SMALL_MB) as journal, pytest.raises(JournalError, match="where record"):
        read(journal)


def test_nothing_can_be_read_that_was_dropped_or_not_written(tmp_path):
    fill(tmp_path, range(1, 41), segment_mb=SMALL_MB)
    with Journal(tmp_path, SMALL_MB) as journal:
        with pytest.raises(JournalError, match="from 42 on"):
            Cursor(journal, 41)
        journal.drop(30)
        with pytest.raises(JournalError, match="from 1 on"):
            Cursor(journal, 0)


def test_one_process_at_a_time(tmp_path):
    with Journal(tmp_path), pytest.raises(JournalError, match="another process has"):
        Journal(tmp_path)
    Journal(tmp_path).close()


def test_a_foreign_file_is_left_alone(tmp_path):
    path = tmp_path / f"{1:020d}.journal"
    path.write_bytes(b"something else entirely")
    with pytest.raises(JournalError, match="not a journal of this version"):
        Journal(tmp_path)
    assert path.read_bytes() == b"something else entirely"


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path):
    """A file-size limit in a process of its own stands for the disk."""
    code = f"""
import resource, signal, sys
from pathlib import Path
from robolearn.distributed.journal import Cursor, Journal, JournalError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, {resource.RLIM_INFINITY}))
journal = Journal(Path({str(tmp_path)!r}))
journal.append(b"a" * 500)
try:
    journal.append(b"b" * 600)
except JournalError as error:
    assert "cannot be written" in str(error), error
else:
    sys.exit("no error")
assert journal.append(b"c" * 100) == 2
cursor = Cursor(journal, 0)
assert [cursor.read(), cursor.read(), cursor.read()] == [(1, b"a" * 500), (2, b"c" * 100), None]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_cursor_follows_a_writer_in_another_thread(tmp_path):
    with Journal(tmp_path, SMALL_MB, fsync="never") as journal:
        cursor, out = Cursor(journal, 0), []
        writer = threading.Thread(target=lambda: [journal.append(payload(n)) for n in range(1, 1001)])
        writer.start()
        while len(out) < 1000:
            found = cursor.read()
            if found is not None:
                out.append(found)
        writer.join()
    assert out == written(range(1, 1001))


WRITER = """
import sys
from pathlib import Path
from robolearn.distributed.journal import Journal
journal = Journal(Path(sys.argv[1]), segment_mb=0.002, fsync="never")
while True:
    number = journal.last + 1
    journal.append(bytes([number % 251]) * (number % 37))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_a_writer_killed_at_random_points_loses_nothing_that_it_reported(tmp_path):
    chance, reported = random.Random(0), 0
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.05))
        process.kill()
        lines = process.stdout.read().split("\n")
        process.wait()
        reported = max([reported, *(int(line) for line in lines[:-1])])
        with Journal(tmp_path) as journal:
            assert journal.last >= reported
            assert read(journal) == written(range(1, journal.last + 1))


def test_a_partial_write_before_a_kill_is_cut(tmp_path):
    """What a kill inside the write itself leaves."""
    fill(tmp_path, range(1, 4))
    with (tmp_path / f"{1:020d}.journal").open("ab") as file:
        file.write(frame(4, b"x" * 100)[:60])
    with Journal(tmp_path) as journal:
        assert (journal.last, journal.lost_bytes) == (3, 60)
        assert os.path.getsize(tmp_path / f"{1:020d}.journal") == journal.size_bytes
