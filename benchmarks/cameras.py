"""What cameras are calibrated to, on rendered pictures: `python -m benchmarks.cameras [n=10] [seed=0]`.

640 x 480 pixels, f = 610 px, distorted (k1 = -0.22), blurred by 0.6 px, noise of 2 grey levels of 255, uneven light; 16
rays a pixel. Each of n runs calibrates the intrinsics from 20 pictures of a board of 8 x 6 squares of 30 mm, and with
what it found the camera in the hand and beside the robot from 15 pictures each, and tags of 40 mm at 0.5 m.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import numpy as np

from benchmarks import camera_truth as truth
from benchmarks.rendered_boards import Eye
from real.perception import hand_eye, intrinsics
from real.perception.lens import Lens
from real.perception.tags import Tag, TagFinder
from real.perception.transforms import apart, matrix

TAG = Tag(3, 0.04)
TAGS_A_RUN = 20
ARM_M = 0.0003
"""What an arm misses its pose by, along each axis."""
TARGETS = {
    "reprojection, px": "0.3",
    "hand-eye in hand, mm": "2",
    "hand-eye in hand, degrees": "0.2",
    "hand-eye beside, mm": "2",
    "hand-eye beside, degrees": "0.2",
    "tag at 0.5 m, mm": "3",
}


def main() -> None:
    words = dict(word.split("=") for word in sys.argv[1:])
    found: dict[str, list[float]] = defaultdict(list)
    for run in range(int(words.get("n", 10))):
        _run(int(words.get("seed", 0)) + run, found)
    print("| what | n | median | 95 % | max | target |")
    print("|---|---|---|---|---|---|")
    for name, values in found.items():
        row = (np.median(values), np.percentile(values, 95), max(values))
        print(f"| {name} | {len(values)} | {' | '.join(f'{v:.3f}' for v in row)} | {TARGETS.get(name, '')} |")


def _run(seed: int, found: dict[str, list[float]]) -> None:
    rng, eye = np.random.default_rng(seed), truth.default_eye(seed, rays=4)
    views = truth.corners_in(truth.board_pictures(eye, 20, rng))
    result = intrinsics.calibrate(views, (truth.LENS.width, truth.LENS.height))
    found["reprojection, px"].append(result.error_px)
    found["focal length off, px"].append(abs(result.lens.fx - truth.LENS.fx))
    found["principal point off, px"].append(float(np.hypot(result.lens.cx - truth.LENS.cx,
                                                           result.lens.cy - truth.LENS.cy)))  # fmt: skip
    for mounting, said in (("hand", "in hand"), ("base", "beside")):
        for arm_m, about in ((0.0, ""), (ARM_M, f", arm off by {1e3 * ARM_M:g} mm")):
            pairs = truth.hand_eye_views(eye, mounting, 15, rng, arm_m)
            camera = hand_eye.calibrate(pairs, result.lens, mounting, "parent").camera
            metres, radians = apart(truth.camera_of(mounting), matrix(camera))
            found[f"hand-eye {said}, mm{about}"].append(1e3 * metres)
            found[f"hand-eye {said}, degrees{about}"].append(float(np.degrees(radians)))
    _tags(eye, result.lens, rng, found)


def _tags(eye: Eye, lens: Lens, rng: np.random.Generator, found: dict[str, list[float]]) -> None:
    finder, refused = TagFinder({"thing": [TAG]}), 0
    for _ in range(TAGS_A_RUN):
        place = truth.tag_in_view(rng, 0.5, rng.uniform(0.0, 60.0))
        seen = finder.find(truth.tag_picture(eye, TAG, "36h11", place), lens)
        if "thing" not in seen:
            refused += 1
            continue
        metres, radians = apart(place, matrix(seen["thing"].pose))
        found["tag at 0.5 m, mm"].append(1e3 * metres)
        found["tag at 0.5 m, degrees"].append(float(np.degrees(radians)))
    found["tags not believed, % of a run"].append(100.0 * refused / TAGS_A_RUN)


if __name__ == "__main__":
    main()
