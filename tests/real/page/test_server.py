"""The page's server over real sockets: the token, TLS, cookies, and other sites."""

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess

import pytest

pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra page)")
pytest.importorskip("fastapi", reason="fastapi is not installed (extra page)")
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from real.page.pages import Pages
from real.page.server import Server
from robolearn.distributed.access import Access
from robolearn.errors import ConfigError

TOKEN = "a-token-of-some-length"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


@pytest.fixture
def serve():
    with contextlib.ExitStack() as opened:

        def start(access=None, address="127.0.0.1:0"):
            server = Server(address, access or Access(), Pages(4))
            opened.callback(server.close)
            return server

        yield start


def ask(server, method, path, body=None, secure=None, **headers):
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    more = {"context": secure} if secure else {}
    with contextlib.closing(kind(server.address, timeout=10.0, **more)) as line:
        line.request(method, path, body, headers)
        answer = line.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def log_in(server, token, **more):
    return ask(server, "POST", "/login", json.dumps({"token": token}), **{"Origin": server.url, **more})


def test_the_page_is_served_to_this_machine_and_may_not_stand_in_a_frame_of_another(serve):
    status, headers, body = ask(serve(), "GET", "/")
    assert status == 200 and b"EMERGENCY STOP" in body
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/../server.py", "/%2e%2e/gate.py", "/static/page.js", "/docs", "/openapi.json"])
def test_nothing_but_the_page_s_files_is_served(serve, path):
    assert ask(serve(), "GET", path)[0] == 404


def test_a_foreign_name_that_leads_here_is_told_nothing(serve):
    assert ask(serve(), "GET", "/", Host="evil.example")[0] == 404


def test_beyond_this_machine_it_wants_token_and_tls_and_names_them(serve):
    with pytest.raises(ConfigError, match=r"needs a token .*TLS certificate"):
        serve(address="0.0.0.0:0")


def test_a_port_that_is_taken_is_named(serve):
    with pytest.raises(ConfigError, match=r"127.0.0.1:\d+ cannot be served.*free port"):
        serve(address=serve().address)


def test_with_a_token_only_who_gave_it_is_let_in(serve, token_file):
    server = serve(Access(token_file=token_file))
    with pytest.raises(WebSocketException), connect(f"ws://{server.address}/ws", origin=server.url):
        pass
    assert json.loads(ask(server, "GET", "/login")[2]) == {"in": False}
    for wrong in ("", TOKEN[:-1], "é", "\ud800", 3, None):
        assert log_in(server, wrong)[0] == 403
    assert ask(server, "POST", "/login", "[" * 100_000, Origin=server.url)[0] == 403
    assert log_in(server, TOKEN, Origin="http://evil.example")[0] == 403
    status, headers, _ = log_in(server, TOKEN)
    words = headers["set-cookie"].lower()
    assert status == 200 and "httponly" in words and "samesite=strict" in words and TOKEN not in words
    cookie = {"Cookie": headers["set-cookie"].partition(";")[0]}
    assert json.loads(ask(server, "GET", "/login", **cookie)[2]) == {"in": True}
    with connect(f"ws://{server.address}/ws", origin=server.url, additional_headers=cookie) as line:
        server.post({"robot": "an arm"})
        assert json.loads(line.recv(timeout=10.0))["robot"] == "an arm"
    with (
        pytest.raises(WebSocketException),
        connect(f"ws://{server.address}/ws", origin="http://evil.example", additional_headers=cookie),
    ):
        pass
    assert server.pages.refused == {"a browser without the token": 1, "a wrong token": 8, "a page of another origin": 1}


def test_with_a_certificate_all_goes_over_tls_and_the_cookie_too(serve, token_file, tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    pem, key = tmp_path / "tls.pem", tmp_path / "tls.key"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 1 -keyout {key} -out {pem} -subj /CN=localhost -addext"
    subprocess.run([openssl, *words.split(), "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    server = serve(Access(token_file, pem, key))
    secure = ssl.create_default_context(cafile=str(pem))
    status, headers, _ = log_in(server, TOKEN, secure=secure)
    assert status == 200 and server.url.startswith("https") and "secure" in headers["set-cookie"].lower()
    cookie = {"Cookie": headers["set-cookie"].partition(";")[0]}
    where = f"wss://{server.address}/ws"
    with connect(where, origin=server.url, ssl=secure, additional_headers=cookie) as line:
        server.post({"robot": "an arm"})
        assert json.loads(line.recv(timeout=10.0))["you"] == "page 1"
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port))) as plain, contextlib.suppress(ConnectionError):
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not plain.recv(100)


def test_a_flood_of_messages_ends_the_connection(serve):
    server = serve()
    with connect(f"ws://{server.address}/ws", origin=server.url) as line, pytest.raises(WebSocketException):
        for _ in range(1000):
            line.send("x")
        line.recv(timeout=10.0)
    assert server.pages.refused["a flood of messages"] == 1


def test_pictures_and_curves_are_sent_once_each(serve):
    server = serve()
    with connect(f"ws://{server.address}/ws", origin=server.url) as line:
        server.board.pictures[0] = 1, b"\xff\xd8\xffjpeg"
        curve, heard = [(1, 0.5)], []
        server.post({"robot": "an arm"}, {"success rate": curve})
        curve.append((2, 0.75))  # the next ones are under way
        while len(heard) < 5:
            heard.append(line.recv(timeout=10.0))
            server.post({"robot": "an arm"})
    assert [m for m in heard if isinstance(m, bytes)] == [b"\x00\xff\xd8\xffjpeg"]
    assert [json.loads(m) for m in heard if isinstance(m, str) and "curves" in m] == [
        {"curves": {"success rate": [[1, 0.5]]}}
    ]


def test_curves_come_behind_the_state_that_they_were_posted_with(serve):
    """However late the thread that serves wakes up: whoever sees curves has their figures."""
    server = serve()
    with connect(f"ws://{server.address}/ws", origin=server.url) as line:
        server.post({"figures": 0})
        assert json.loads(line.recv(timeout=10.0))["figures"] == 0
        for k in range(1, 30):
            server.post({"figures": k}, {"of": k})
            if k % 3 == 0:
                server.post({"figures": k + 0.5})
            figures, curves = None, None
            while curves != k:
                said = json.loads(line.recv(timeout=10.0))
                figures, curves = said.get("figures", figures), said.get("curves", {}).get("of")
            assert figures >= k


def test_an_address_of_ip_version_6_is_one_that_a_browser_understands(serve):
    try:
        server = serve(address="[::1]:0")
    except ConfigError:
        pytest.skip("this machine has no loopback of IP version 6")
    assert server.url.startswith("http://[::1]:")
    host, _, port = server.address.rpartition(":")
    with contextlib.closing(http.client.HTTPConnection(host.strip("[]"), int(port), timeout=10.0)) as line:
        line.request("GET", "/", headers={"Host": server.address})
        assert line.getresponse().status == 200
