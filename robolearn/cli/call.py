"""Call a service of a running robot: guard/takeoff, policy/start, guard/estop, record/stop ...

usage: robolearn call NAME [NAME ...] [timeout_s=5]

Services of type std_srvs/Trigger, as all of ours are; for machines without `ros2 service call`. A name is relative to
the root: with a namespace, cf1/guard/takeoff. Several are called one after the other, as long as the answer is yes. The
exit code is 0 if all of them said yes, 1 if one said no, 2 if nobody serves it. ROS_DOMAIN_ID counts.

examples:
  robolearn call policy/start
  robolearn call cf1/guard/takeoff cf1/policy/start
"""

from __future__ import annotations

from robolearn.errors import ConfigError, UserError


def help_text() -> str:
    return __doc__ or ""


def main(argv: list[str]) -> int:
    names = [word for word in argv if "=" not in word]
    settings = dict(word.split("=", 1) for word in argv if "=" in word)
    timeout_s = _seconds(settings.pop("timeout_s", "5"))
    if settings or not names:
        raise ConfigError(f"no option '{next(iter(settings))}'; there is timeout_s" if settings else
                          "which service? for example: robolearn call policy/start")  # fmt: skip
    from real.listener import Listener

    with Listener("call") as listener:
        for name in names:
            try:
                answer = listener.call(f"/{name.strip('/')}", timeout_s)
            except UserError as error:
                raise ConfigError(f"{error}: is it running, and in this ROS_DOMAIN_ID?") from None
            print(f"{name}: {answer.message or ('done' if answer.success else 'refused')}")
            if not answer.success:
                return 1
    return 0


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1e6:
        raise ConfigError(f"timeout_s must be a number of seconds above 0, got {text}")
    return value
