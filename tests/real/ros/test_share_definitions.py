"""Texts of messages from the folders of an installation."""

from pathlib import Path

import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from real.ros.share_definitions import collected

FILES = {
    "lab/msg/Arm.msg": "# of an arm\nstd_msgs/Header header\nJoint[<=7] joints  # named\nfloat64[3] at\nint32 N=3\n",
    "lab/msg/Joint.msg": "string<=10 name\nbuiltin_interfaces/Time[] stamps\nbool ok true\n",
    "std_msgs/msg/Header.msg": "builtin_interfaces/Time stamp\nstring frame_id\n",
    "builtin_interfaces/msg/Time.msg": "int32 sec\nuint32 nanosec\n",
}


def test_a_message_comes_with_all_that_it_uses(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    text = collected("lab/msg/Arm", lambda package: tmp_path / package)
    assert text.startswith(FILES["lab/msg/Arm.msg"])
    assert text.count("=" * 80 + "\nMSG: builtin_interfaces/Time\nint32 sec") == 1
    found = get_types_from_msg(text, "lab/msg/Arm")
    assert set(found) == {name.removesuffix(".msg") for name in FILES}
    store = get_typestore(Stores.EMPTY)
    store.register(found)
    standard = get_typestore(Stores.ROS2_JAZZY)
    assert store.hash_rihs01("std_msgs/msg/Header") == standard.hash_rihs01("std_msgs/msg/Header")


@pytest.mark.parametrize("name", ["lab/action/Grasp_FeedbackMessage", "lab/msg/None"])
def test_what_has_no_text_has_none(tmp_path: Path, name: str) -> None:
    assert collected(name, lambda package: tmp_path / package) == ""
