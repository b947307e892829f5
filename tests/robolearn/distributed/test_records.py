"""What does not fit is refused, and the refusal names it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import wire_samples as samples
from wire_samples import ABOUT

from robolearn.distributed.records import Field, Record, WireError, decode, encode, fields, wire


def changed(record: Record, **tensors: object) -> Record:
    kept = {k: v for k, v in (record.tensors | tensors).items() if v is not None}  # type: ignore[operator]
    return replace(record, tensors=kept)


def test_a_record_comes_back_as_it_was():
    sent = replace(samples.step(3.0), sequence=9)
    back = decode(encode(sent, ABOUT), ABOUT, "left")
    assert (back.actor, back.sequence, back.first, back.numbers) == ("left", 9, False, {"reward": 3.0, "human": 1.0})
    assert back.tensors.keys() == sent.tensors.keys()
    for name, array in sent.tensors.items():
        np.testing.assert_array_equal(back.tensors[name], array)
        assert back.tensors[name].dtype == array.dtype
    back.tensors["action"][0] = 5.0  # its own memory
    assert decode(encode(samples.first(1.0), ABOUT), ABOUT).first


def test_pictures_stay_bytes():
    numbers = encode(replace(samples.step(200.0), sequence=1), ABOUT)
    (picture,) = [t for t in wire.Record.FromString(numbers).tensors if t.name == "obs/front"]
    assert picture.data == bytes([200]) * 12


NAN = np.array([0.0, np.nan], np.float32)
BAD = [
    (changed(samples.step(1.0), action=None), "lacks action"),
    (changed(samples.step(1.0), actoin=NAN), "did you mean action"),
    (changed(samples.step(1.0), action=np.zeros(3, np.float32)), r"action is float32 \(3,\), not float32 \(2,\)"),
    (changed(samples.step(1.0), action=np.zeros(2)), "action is float64"),
    (changed(samples.step(1.0), action=torch.zeros(2, 1)), r"\(2, 1\)"),
    (changed(samples.step(1.0), action=torch.zeros(2, dtype=torch.bfloat16)), "convert it to one of bool"),
    (changed(samples.step(1.0), action=NAN), "action is not finite"),
    (changed(samples.first(1.0), action=np.zeros(2, np.float32)), r"first frame\): no tensor 'action'"),
    (replace(samples.step(1.0), numbers={"reward": 1.0}), "lacks human"),
    (replace(samples.step(1.0), numbers={"reward": np.nan, "human": 0}), "reward is nan"),
    (replace(samples.step(1.0), numbers={"rewrd": 1.0, "human": 0}), "did you mean reward"),
]


@pytest.mark.parametrize(("record", "says"), BAD, ids=[says for _, says in BAD])
def test_a_record_that_does_not_fit_is_refused(record, says):
    with pytest.raises(WireError, match=says):
        encode(record, ABOUT)


def tampered(**changes: object) -> bytes:
    message = wire.Record.FromString(encode(replace(samples.step(1.0), sequence=4), ABOUT))
    tensor = next(t for t in message.tensors if t.name == "action")
    for name, value in changes.items():
        if name == "shape":
            del tensor.shape[:]
            tensor.shape.extend(value)
        elif name == "kind":
            message.kind = value
        else:
            setattr(tensor, name, value)
    return message.SerializeToString()


GARBAGE = [
    (b"\xff\xff\xff", "no Record of schema 1"),
    (b"", "unknown kind 0"),
    (tampered(kind=7), "unknown kind 7"),
    (tampered(data=b"\0" * 7), "has 7 bytes: it is torn"),
    (tampered(shape=[2**31, 2**31]), "is torn"),
    (tampered(dtype="object"), "no dtype 'object'"),
    (tampered(name="obs/policy"), "obs/policy comes twice"),
    (tampered(data=np.array([1.0, np.inf], "<f4").tobytes()), "action is not finite"),
]


@pytest.mark.parametrize(("data", "says"), GARBAGE, ids=[says for _, says in GARBAGE])
def test_bytes_that_are_no_record_are_refused(data, says):
    with pytest.raises(WireError, match=says):
        decode(data, ABOUT)


def test_what_two_ends_are_about_is_compared_field_by_field():
    ABOUT.require(samples.other().to_json(), "the actor")
    theirs = samples.other(specification={**ABOUT.specification, "robot": "ur5e", "rate_hz": 20.0})
    with pytest.raises(WireError, match=r"the actor is about .*rate_hz: 10.0 != 20.0; .*robot: 'franka' != 'ur5e'"):
        ABOUT.require(theirs.to_json(), "the actor")
    with pytest.raises(WireError, match="run: 'lift-7' != 'lift-8'"):
        ABOUT.require(samples.other(run="lift-8").to_json(), "the actor")
    with pytest.raises(WireError, match=r"numbers: 2 \(human, reward\) != 1 \(reward\)"):
        ABOUT.require(samples.other(numbers=("reward",)).to_json(), "the actor")
    wider = samples.other(tensors={**ABOUT.tensors, "action": Field("float32", (7,))})
    with pytest.raises(WireError, match=r"tensors.action.shape.0: 2 != 7"):
        ABOUT.require(wider.to_json(), "the actor")
    with pytest.raises(WireError, match="does not say"):
        ABOUT.require("{", "the actor")


def test_fields_of_a_policy():
    policy = torch.nn.Linear(3, 2)
    assert fields(policy.state_dict()) == {"weight": Field("float32", (2, 3)), "bias": Field("float32", (2,))}
