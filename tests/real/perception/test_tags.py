"""Tags on rendered, noisy pictures, against their true places."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed (extra vision)")
from real.perception import edges
from real.perception import tags as module
from real.perception.tags import Tag, TagFinder, cells_of, pose_of
from real.perception.transforms import apart, exponential, inverse, matrix
from robolearn.errors import ConfigError

TAG = Tag(3, 0.04)


@pytest.mark.parametrize("family", ["36h11", "4x4"])
def test_a_tag_at_half_a_metre_is_found_within_millimetres(truth, lens, rng, family):
    eye, finder, off = truth.default_eye(1), TagFinder({"thing": [TAG]}, family), []
    for tilt in (0.0, 15.0, 30.0, 45.0, 60.0) * 2:
        place = truth.tag_in_view(rng, 0.5, tilt)
        seen = finder.find(truth.tag_picture(eye, TAG, family, place), lens)
        if "thing" in seen:
            metres, radians = apart(place, matrix(seen["thing"].pose))
            assert metres < 0.003 and np.degrees(radians) < 12.0
            off.append(metres)
    assert len(off) >= 7 and len(off) + sum(finder.refused.values()) == 10  # what is not believed is counted


def test_a_tag_is_where_its_object_says(truth, lens, rng):
    """A tag on the side of a cube: the cube's centre is what is told."""
    tag = Tag(7, 0.04, tuple(module.transforms.pose(exponential(np.array([0.0, 0.0, 0.025, 0.0, 0.0, 0.3])))))
    place = truth.tag_in_view(rng, 0.4, 30.0) @ inverse(matrix(tag.pose))
    seen = TagFinder({"cube": [tag]}).find(truth.tag_picture(truth.default_eye(2), tag, "36h11", place), lens)
    assert apart(place, matrix(seen["cube"].pose))[0] < 0.003


def test_corners_from_edges_are_several_times_better_than_the_detectors(truth, lens, rng):
    eye, finder, rough, fine = truth.default_eye(8), TagFinder({"thing": [TAG]}), [], []
    for tilt in (0.0, 20.0, 40.0) * 2:
        place = truth.tag_in_view(rng, 0.5, tilt)
        picture = truth.tag_picture(eye, TAG, "36h11", place)
        quad = np.asarray(finder._detector.detectMarkers(picture)[0][0], dtype=np.float64).reshape(4, 2)
        there = _corners(place, lens)
        rough.append(np.linalg.norm(quad - there, axis=1))
        fine.append(np.linalg.norm(edges.refined(picture, quad, 8, lens) - there, axis=1))
    assert np.median(fine) < 0.06 and np.median(rough) > 3.0 * np.median(fine)


def test_two_tags_of_one_object_decide_what_one_cannot(truth, lens, rendered):
    """On two faces of a cube."""
    front = Tag(1, 0.04, (0.0, 0.0, 0.025, 0.0, 0.0, 0.0, 1.0))
    side = Tag(2, 0.04, tuple(module.transforms.pose(
        exponential(np.array([0.025, 0.0, 0.0, 0.0, np.pi / 2, 0.0])))))  # fmt: skip
    cube = np.diag([1.0, -1.0, -1.0, 1.0]) @ exponential(np.array([0.0, 0.0, 0.0, 0.0, -0.6, 0.0]))
    cube[:3, 3] = 0.0, 0.01, 0.3
    patterns = [rendered.marker(cells_of("36h11", t.id), t.size_m, cube @ matrix(t.pose)) for t in (front, side)]
    seen = TagFinder({"cube": [front, side]}).find(truth.default_eye(4).picture(patterns), lens)
    metres, radians = apart(cube, matrix(seen["cube"].pose))
    assert seen["cube"].tags == 2 and metres < 0.001 and np.degrees(radians) < 0.5


def _corners(place, lens):
    points = TAG.corners() @ place[:3, :3].T + place[:3, 3]
    return lens.project(points)


def test_of_two_poses_that_explain_it_equally_well_none_is_told(lens):
    """Far away and slightly tilted, its corners off by a quarter of a pixel towards its mirror image."""
    plain = dataclasses.replace(lens, distortion=(0.0,) * 5)
    facing = np.diag([1.0, -1.0, -1.0, 1.0])
    tilted, mirrored = (facing @ exponential(np.array([0.0, 0.0, 0.0, tilt, 0.0, 0.0])) for tilt in (0.3, -0.3))
    for place in (tilted, mirrored):
        place[2, 3] = 1.5
    between = (_corners(tilted, plain) + _corners(mirrored, plain)) / 2
    assert pose_of([TAG], [between], plain) == module.UNDECIDED
    near = tilted.copy()
    near[2, 3] = 0.25
    found = pose_of([TAG], [_corners(near, plain)], plain)
    assert apart(near, matrix(found.pose))[0] < 1e-6  # near by, the same tilt is told apart


def test_a_tag_of_another_shape_is_no_tag(lens):
    place = np.diag([1.0, -1.0, -1.0, 1.0])
    place[2, 3] = 0.5
    quad = _corners(place, lens)
    quad[0] += 12.0
    assert pose_of([TAG], [quad], lens) == module.MISFIT


@pytest.mark.parametrize("what", ["black", "half outside", "turned away", "too far", "too slanted"])
def test_what_is_not_to_be_seen_is_not_seen(truth, lens, what):
    eye, place = truth.default_eye(6), np.diag([1.0, -1.0, -1.0, 1.0])
    place[:3, 3] = 0.0, 0.0, 0.5
    if what == "half outside":
        place[0, 3] = 0.5 * (640 - lens.cx) / lens.fx
    if what == "turned away":
        place[:3, :3] = np.eye(3)
    if what == "too far":
        place[2, 3] = 4.0
    if what == "too slanted":
        place = place @ exponential(np.array([0.0, 0.0, 0.0, 1.25, 0.0, 0.0]))
    picture = np.zeros((480, 640), np.uint8) if what == "black" else truth.tag_picture(eye, TAG, "36h11", place)
    assert TagFinder({"thing": [TAG]}).find(picture, lens) == {}


def test_edges_that_are_nearly_parallel_give_no_corners(monkeypatch, lens):
    """They meet anywhere: a thousand kilometres of edge are not to be sampled."""
    monkeypatch.setattr(edges, "_line", lambda *given: np.array([1.0, 0.0, 300.0]))
    quad = np.array([[300.0, 200.0], [340.0, 200.0], [340.0, 240.0], [300.0, 240.0]])
    assert edges.refined(np.zeros((480, 640), np.uint8), quad, 8, lens) is None


def test_a_tag_that_is_seen_twice_is_believed_nowhere(truth, lens, rendered):
    places = [np.diag([1.0, -1.0, -1.0, 1.0]) @ exponential(np.array([0, 0, 0, 0.4, 0, 0])) for _ in range(2)]
    places[0][:3, 3], places[1][:3, 3] = (-0.1, 0.0, 0.5), (0.1, 0.0, 0.5)
    patterns = [rendered.marker(cells_of("36h11", 3), 0.04, place) for place in places]
    finder = TagFinder({"thing": [TAG]})
    assert finder.find(truth.default_eye(7).picture(patterns), lens) == {}
    assert finder.refused == {"thing: a tag is seen twice": 1}


def test_a_picture_of_another_size_than_the_calibrations_is_an_error(lens):
    with pytest.raises(ValueError, match="320 x 240"):
        TagFinder({"thing": [TAG]}).find(np.zeros((240, 320, 3), np.uint8), lens)


def test_a_table_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="tag 3 is given twice"):
        TagFinder({"a": [TAG], "b": [TAG]})
    with pytest.raises(ConfigError, match="tags 0 to 586"):
        TagFinder({"a": [Tag(587, 0.04)]})
    with pytest.raises(ConfigError, match="36h11"):
        TagFinder({"a": [TAG]}, "36h10")
    with pytest.raises(ConfigError, match="size_m"):
        Tag(1, 0.0)
    with pytest.raises(ConfigError, match="tag 1"):
        Tag(1, 0.04, (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
