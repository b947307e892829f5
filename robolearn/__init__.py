"""The learning library: torch and numpy, no simulator and no ROS."""


def __getattr__(name: str) -> str:
    if name == "__version__":  # looked up when asked for: importing must stay cheap
        from robolearn.paths import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
