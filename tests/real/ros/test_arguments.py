"""`--ros-args`, parameter files, names, environment."""

import pytest

pytest.importorskip("cyclonedds")

from real.ros.arguments import Arguments, cyclonedds_config, domain_id, matches
from real.ros.names import Remap, expand, node_and_namespace, resolve
from robolearn.errors import ConfigError


def parse(text: str) -> Arguments:
    return Arguments.parse(text.split())


def test_what_is_not_ros_is_left_to_the_program():
    assert parse("node --fast --ros-args -r a:=b -- out=x --ros-args -p k:=1").rest == ["node", "--fast", "out=x"]


def test_parameters_have_yaml_types():
    got = parse("n --ros-args -p a:=1 -p b:=1.0 -p c:=1e-3 -p d:=true -p e:=text -p f:=[1,2] -p g.h:='3'").overrides(
        "/n"
    )
    assert got == {"a": 1, "b": 1.0, "c": 1e-3, "d": True, "e": "text", "f": [1, 2], "g.h": "3"}
    assert type(got["c"]) is float and type(got["a"]) is int


def test_files_are_matched_by_node_name_and_later_ones_win(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text(
        "/**:\n  ros__parameters:\n    rate: 1\n    limits: {speed: 2.0, box: [0, 1]}\n"
        "arm/policy:\n  ros__parameters: {rate: 2}\n"
        "/arm:\n  guard:\n    ros__parameters: {rate: 3}\n"
        "/*/twin:\n  ros__parameters: {rate: 4}\n"
    )
    got = parse(f"n --ros-args --params-file {path} -p twin:late:=5")
    assert got.overrides("/other") == {"rate": 1, "limits.speed": 2.0, "limits.box": [0, 1]}
    assert [got.overrides(f"/arm/{n}")["rate"] for n in ("policy", "guard", "twin")] == [2, 3, 4]
    assert got.overrides("/arm/twin")["late"] == 5 and "late" not in got.overrides("/arm/guard")


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("/**", "/a/b/c", True), ("/*", "/a/b", False), ("/*/b", "/a/b", True), ("/a/**", "/a", True),
        ("/**/c", "/a/b/c", True), ("/**/c", "/c", True), ("/a", "/ab", False),
    ],
)  # fmt: skip
def test_patterns_of_node_names(pattern, name, fits):
    assert matches(pattern, name) is fits


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--remape a:=b", "did you mean --remap"), ("-r a=b", "-r a=b"), ("-p a=1", "-p a=1"), ("-p", "needs a value"),
        ("--params-file none.yaml", "none.yaml"), ("--log-level loud", "no level 'loud'"), ("-p a:=[1", "-p a:="),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(words, says):
    with pytest.raises(ConfigError, match=says.replace("[", r"\[")):
        parse(f"n --ros-args {words}")


@pytest.mark.parametrize("text", ["a: 1", "- 1", "a:\n  ros__parameters: 3\n", "a: [", "{}:"])
def test_files_that_hold_no_parameters_are_refused_by_name(tmp_path, text):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"wrong\.yaml"):
        parse(f"n --ros-args --params-file {path}")


@pytest.mark.parametrize(
    ("name", "full"),
    [("x", "/ns/x"), ("/x", "/x"), ("~/x", "/ns/me/x"), ("~", "/ns/me"), ("a/b", "/ns/a/b"), ("{node}/x", "/ns/me/x")],
)
def test_names_expand(name, full):
    assert expand(name, "me", "/ns") == full


@pytest.mark.parametrize("name", ["", "a//b", "1a", "a b", "a-b", "/", "~x", "a/"])
def test_names_that_ros_does_not_allow_are_refused(name):
    with pytest.raises(ConfigError, match="no name"):
        expand(name, "me", "/")


def test_the_first_rule_that_fits_remaps():
    rules = [Remap.parse(t) for t in ("you:x:=/other", "x:=/one", "/ns/x:=/two", "~/y:=~/z")]
    assert resolve("x", "me", "/ns", rules) == "/one"
    assert resolve("x", "you", "/ns", rules) == "/other"
    assert resolve("~/y", "me", "/ns", rules) == "/ns/me/z"
    assert node_and_namespace("a", "b", [Remap.parse("a:__node:=c")]) == ("c", "/b")


@pytest.mark.parametrize("text", ["233", "-1", "one"])
def test_domains_that_do_not_exist_are_refused(monkeypatch, text):
    monkeypatch.setenv("ROS_DOMAIN_ID", text)
    with pytest.raises(ConfigError, match="ROS_DOMAIN_ID"):
        domain_id()


def test_discovery_stays_on_this_machine_unless_told(monkeypatch):
    for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "CYCLONEDDS_URI", "ROS_STATIC_PEERS"):
        monkeypatch.delenv(name, raising=False)
    ours = cyclonedds_config()
    assert "<AllowMulticast>false" in ours and '<Peer address="localhost"/>' in ours
    assert "<ParticipantIndex>auto" in ours and "<MaxAutoParticipantIndex>32" in ours
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    monkeypatch.setenv("CYCLONEDDS_URI", "file:///etc/dds.xml")
    assert "Multicast" not in cyclonedds_config() and cyclonedds_config().endswith(",file:///etc/dds.xml")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "everywhere")
    with pytest.raises(ConfigError, match="LOCALHOST, SUBNET"):
        cyclonedds_config()
