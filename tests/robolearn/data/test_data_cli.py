"""`robolearn data`: what it says, its exit codes, its page."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from episode_samples import ACTION, CAMERA, STATE, expected, length_of, make, unjoined

from robolearn.cli.main import main
from robolearn.data import labels, layout
from robolearn.data.read import Episodes

pytest.importorskip("pyarrow")
av = pytest.importorskip("av")


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path / "set", robot="franka")
    labels.write(root, "vlm", {0: np.zeros(5)})
    assert main(["data", "info", str(root)]) == 0
    out = capsys.readouterr().out
    assert "4 episodes, 26 steps at 10 Hz" in out and "robot franka" in out
    assert "steps an episode: 5 to 8, median 6" in out
    assert re.search(r"observation.state +float32 3 +m +x y z", out)
    assert re.search(r"observation.images.front +h264 32x48x3", out)
    assert re.search(r"4 +insert the peg", out) and re.search(r"vlm +1", out)


def test_check_names_and_repairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = unjoined(tmp_path / "set", 3)
    path = root / layout.path_of(f"videos/{CAMERA}", 1)
    path.write_bytes(path.read_bytes()[:500])
    assert main(["data", "check", str(root)]) == 1
    out = capsys.readouterr().out
    assert "episode 1: " in out and "3 episodes, 1 broken" in out and "--repair leaves them out" in out
    assert main(["data", "check", str(root), "--repair"]) == 0
    assert "2 of 3 episodes are read from now on; left out: 1" in capsys.readouterr().out
    assert main(["data", "check", str(root)]) == 0
    assert "3 episodes, 0 broken, 1 left out (1)" in capsys.readouterr().out


def test_view_is_one_page_with_films_and_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    root = make(tmp_path / "set")
    labels.write(root, "vlm", {e: np.arange(length_of(e)) for e in range(4)})
    assert main(["data", "view", str(root), "episodes=2 0"]) == 0
    page = (tmp_path / "set.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Statistics", "Episode 2", "Episode 0"]
    films = re.findall(r'src="data:video/mp4;base64,([^"]+)"', page)
    (tmp_path / "film.mp4").write_bytes(base64.b64decode(films[0]))
    with av.open(str(tmp_path / "film.mp4")) as film:
        assert len(list(film.decode(video=0))) == length_of(2)
    assert page.count("<svg") == 2 * 5 + 1  # four vectors, a label; the lengths
    assert f"{STATE} x" in page and "http" not in re.sub(
        r"http://www.w3.org|https?://\S*(dtd|matplotlib|purl|creativecommons)\S*", "", page
    )


def test_convert_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("h5py")
    root = make(tmp_path / "set")
    ways = {"robomimic": tmp_path / "set.hdf5", "isaaclab": tmp_path / "isaac.hdf5", "minari": tmp_path / "set-v0"}
    assert main(["data", "convert", str(root), str(ways["robomimic"])]) > 0
    assert "name the format= to make of it, robomimic or isaaclab or minari" in capsys.readouterr().err
    for name, path in ways.items():
        assert main(["data", "convert", str(root), str(path), f"format={name}"]) == 0
        words = ["data", "convert", str(path), str(tmp_path / name), "codec=ffv1", "task=peg"]
        assert main(words) > 0
        assert "give fps=" in capsys.readouterr().err
        assert main([*words, "fps=10"]) == 0
        assert f"{tmp_path / name}: 4 episodes of {path}" in capsys.readouterr().out
        back = Episodes(tmp_path / name)
        assert back.task(3) == "peg"
        for key in (STATE, ACTION):
            np.testing.assert_array_equal(back.episode(3)[key], expected(3, key))
        camera = next(k for k in back.info.videos if k.startswith("observation"))
        np.testing.assert_array_equal(back.pictures(camera, 3, range(8)), expected(3, CAMERA))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data"], "what shall be done? info, check, view, convert"),
        (["data", "chek", "x"], "no action 'chek'; did you mean check"),
        (["data", "info"], "which episodes? robolearn data info PATH"),
        (["data", "info", "nowhere"], "nowhere is not a set of episodes: it has no meta/info.json"),
        (["data", "check", "nowhere"], "nowhere is not a set of episodes"),
        (["data", "info", "nowhere", "--repair"], "--repair is for robolearn data check"),
        (["data", "convert", "nowhere"], "where to? robolearn data convert FROM TO"),
        (["data", "convert", "nowhere", "set"], "nowhere does not exist"),
        (["data", "convert", "nowhere", "set", "format=hdf"], "no format 'hdf'"),
        (["data", "view", "nowhere", "out=page.pdf"], "out must be a .html file"),
        (["data", "view", "nowhere", "episodes=one"], "episodes are numbers separated by spaces, got 'one'"),
    ],
)
def test_bad_words(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) > 0
    assert message in capsys.readouterr().err
