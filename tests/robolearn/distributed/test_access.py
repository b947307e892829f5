"""The loopback needs nothing; any other address a token and TLS."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import wire_samples as samples
from wire_samples import ABOUT

from robolearn.distributed.access import VARIABLE, Access, admitted, is_loopback, metadata
from robolearn.distributed.actor import ActorLink, RefusedError
from robolearn.distributed.journal import JournalError
from robolearn.distributed.learner import LearnerServer
from robolearn.errors import ConfigError

TOKEN = "correct-horse-battery-staple"
LONG_S = 30.0


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def token_file(folder: Path, text: str = TOKEN, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(text + "\n")
    path.chmod(mode)
    return path


def certificate(folder: Path, name: str = "tls") -> tuple[Path, Path]:
    """Certificate and key for 127.0.0.1."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN={name} " \
              f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {pem}"  # fmt: skip
    subprocess.run([openssl, *command.split()], check=True, capture_output=True)
    return pem, key


def test_which_addresses_are_on_this_machine():
    here = ("127.0.0.1:1", "127.8.8.8:1", "localhost:1", "[::1]:1", "unix:/tmp/x", "unix-abstract:x")
    there = ("0.0.0.0:1", "[::]:1", "192.168.0.7:1", "robot.local:1", "localhost.example.org:1", "127.0.0.1.example:1",
             "127.0.0.1,10.0.0.1:1", "dns:///127.0.0.1:1", ":1", "")  # fmt: skip
    assert [a for a in here if not is_loopback(a)] == []
    assert [a for a in there if is_loopback(a)] == []


def test_any_other_address_needs_token_and_tls(tmp_path, monkeypatch):
    pem, key = tmp_path / "a.pem", tmp_path / "a.key"
    with pytest.raises(ConfigError, match=r"needs a token .*ROBOLEARN_TOKEN\), a TLS certificate, the certificate's"):
        LearnerServer("0.0.0.0:0", ABOUT, tmp_path / "learner")
    with pytest.raises(ConfigError, match=r"192.168.0.7:1 is not on this machine: that needs a token .*, a TLS"):
        ActorLink("192.168.0.7:1", ABOUT, tmp_path / "actor")
    assert list(tmp_path.iterdir()) == []  # nothing was begun
    monkeypatch.setenv(VARIABLE, TOKEN)
    with pytest.raises(ConfigError, match=r"that needs a TLS certificate; or use 127.0.0.1"):
        Access().require("10.0.0.1:1", server=False)
    with pytest.raises(ConfigError, match=r"that needs the certificate's key"):
        Access(certificate=pem).require("10.0.0.1:1", server=True)
    Access(certificate=pem).require("10.0.0.1:1", server=False)
    Access(certificate=pem, key=key).require("10.0.0.1:1", server=True)


def test_tokens_that_are_none(tmp_path, monkeypatch):
    assert Access().token() == ""
    assert Access(token_file(tmp_path)).token() == TOKEN
    with pytest.raises(ConfigError, match="can be read by others; do: chmod 600"):
        Access(token_file(tmp_path, mode=0o640)).token()
    for text in ("", "short"):
        with pytest.raises(ConfigError, match="shorter than 16"):
            Access(token_file(tmp_path, text)).token()
    with pytest.raises(ConfigError, match="printable ASCII"):
        Access(token_file(tmp_path, TOKEN + "\x07é")).token()
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Access(tmp_path / "missing").token()
    monkeypatch.setenv(VARIABLE, "short")
    with pytest.raises(ConfigError, match="ROBOLEARN_TOKEN is shorter"):
        Access().token()


def test_only_the_whole_token_admits():
    assert admitted(metadata(TOKEN), TOKEN)
    assert admitted((), "") and admitted(metadata(TOKEN), "")
    for wrong in ("", TOKEN[:-1], TOKEN + "x", TOKEN.upper()):
        assert not admitted(metadata(wrong), TOKEN)
    assert not admitted((("authorization", "Bearer é"),), TOKEN)


def test_a_token_that_is_set_is_demanded_on_the_loopback_too(tmp_path):
    good, bad = Access(token_file(tmp_path)), tmp_path / "bad"
    bad.mkdir()
    with LearnerServer("127.0.0.1:0", ABOUT, tmp_path / "learner", access=good) as server:
        for name, access in (("none", None), ("wrong", Access(token_file(bad, TOKEN + "x")))):
            link = ActorLink(server.address, ABOUT, tmp_path / name, actor=name, access=access)
            with link, pytest.raises(RefusedError, match="token is missing or wrong"):
                link.wait_connected(LONG_S)
        assert server.actors() == {}
        with ActorLink(server.address, ABOUT, tmp_path / "left", actor="left", access=good) as link:
            link.send(samples.step(1.0))
            assert link.wait_acknowledged(LONG_S)


def test_over_tls_only_the_known_certificate_is_spoken_to(tmp_path):
    pem, key = certificate(tmp_path)
    other, _ = certificate(tmp_path, "other")
    token = token_file(tmp_path)
    access = Access(token, pem, key)
    with LearnerServer("127.0.0.1:0", ABOUT, tmp_path / "learner", access=access) as server:
        with ActorLink(server.address, ABOUT, tmp_path / "left", actor="left", access=Access(token, pem)) as link:
            link.send(samples.step(1.0))
            assert link.wait_acknowledged(LONG_S)
            server.publish(1, samples.weights(1.0), step=1)
        for name, wrong in (("other", Access(token, other)), ("plain", Access(token))):
            with ActorLink(server.address, ABOUT, tmp_path / name, actor=name, access=wrong) as link:
                assert not link.wait_connected(0.5)
        assert server.actors().keys() == {"left"}


def test_certificates_that_are_missing_or_half(tmp_path):
    with pytest.raises(ConfigError, match="both a certificate and its key"):
        Access(certificate=tmp_path / "a.pem").server_credentials()
    with pytest.raises(ConfigError, match=r"the key .*a\.key cannot be read"):
        Access(certificate=tmp_path / "a.pem", key=tmp_path / "a.key").server_credentials()
    assert Access().server_credentials() is None and Access().channel_credentials() is None


def test_two_learners_share_neither_address_nor_journal(tmp_path):
    with LearnerServer("127.0.0.1:0", ABOUT, tmp_path / "learner") as server:
        with pytest.raises(ConfigError, match="another process has it"):
            LearnerServer(server.address, ABOUT, tmp_path / "second")
        with pytest.raises(JournalError, match=r"another process has .*learner open"):
            LearnerServer("127.0.0.1:0", ABOUT, tmp_path / "learner")
    LearnerServer(server.address, ABOUT, tmp_path / "second").close()  # and the failed one holds nothing


def test_a_server_that_is_closed_twice_closes_nothing_of_others(tmp_path):
    server = LearnerServer("127.0.0.1:0", ABOUT, tmp_path / "learner")
    server.close()
    files = [(tmp_path / str(k)).open("w") for k in range(20)]  # one of them has the number that its lock had
    server.close()
    for file in files:
        file.write("there")
        file.close()


def test_a_unix_socket_serves_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    server = LearnerServer("unix:socket", ABOUT, tmp_path / "learner")
    with server, ActorLink(server.address, ABOUT, tmp_path / "left") as link:
        link.send(samples.step(1.0))
        assert link.wait_acknowledged(LONG_S)
