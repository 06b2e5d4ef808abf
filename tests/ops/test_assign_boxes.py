"""Assignments that look at boxes alone, not at what is predicted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ylosia_jax.ops.assign import assign_centres, assign_max_iou
from ylosia_jax.ops.sample import hardest_background

# In a row, each 10 px wide; their overlaps with an object are easy to tell.
ROW = jnp.array([[10.0 * i, 0, 10 * i + 10, 10] for i in range(6)])


def both(function, *args, **how):
    """What a function returns, jitted or not."""
    eager = function(*args, **how)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(lambda *args: function(*args, **how))(*args), eager)
    return np.asarray(eager.kind).tolist(), np.asarray(eager.index).tolist()


def test_thresholds():
    boxes = jnp.array([[0.0, 0, 10, 6], [18, 0, 30, 10], [40, 0, 50, 4]])
    valid = jnp.array([True, True, True])
    # Overlaps: 0.6; 0.833 (and 0.1 with the one before); 0.4, which is not below the lower threshold.
    kind, index = both(assign_max_iou, boxes, valid, ROW, positive=0.5, negative=0.4)
    assert (kind, index) == ([1, 0, 1, 0, -1, 0], [0, 0, 1, 0, 0, 0])


def test_every_object_has_its_best_anchors_if_forced():
    boxes = jnp.array([[35.0, 0, 45, 10], [0, 0, 10, 10], [70, 70, 80, 80]])
    valid = jnp.array([True, True, True])
    # The first overlaps two anchors equally, by a third; nothing overlaps the last.
    kind, index = both(assign_max_iou, boxes, valid, ROW, positive=0.5, negative=0.3, force_match=True)
    assert (kind, index) == ([1, 0, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0])


def test_two_sided_matching_takes_an_anchor_from_an_object_that_it_overlaps_more():
    # Both overlap anchor 1 most, the first by 1, the second by 2/3; the third has anchors 3 and 4 at the same distance.
    boxes = jnp.array([[10.0, 0, 20, 10], [8, 0, 18, 10], [35, 0, 45, 10]])
    valid = jnp.array([True, True, True])
    kind, index = both(assign_max_iou, boxes, valid, ROW, positive=0.5, negative=0.5, bipartite=True)
    assert (kind, index) == ([0, 1, 0, 1, 0, 0], [0, 1, 0, 2, 0, 0])
    kind, index = both(
        assign_max_iou, boxes, jnp.array([True, False, False]), ROW, positive=0.5, negative=0.5, bipartite=True
    )
    assert (kind, index) == ([0, 1, 0, 0, 0, 0], [0] * 6)


@pytest.mark.parametrize("how", [{}, {"force_match": True}, {"bipartite": True}])
def test_without_objects_all_is_background(how):
    boxes = jnp.array([[0.0, 0, 10, 10], [0, 0, 0, 0]])
    kind, index = both(assign_max_iou, boxes, jnp.zeros(2, bool), ROW, positive=0.5, negative=0.5, **how)
    assert (kind, index) == ([0] * 6, [0] * 6)


@pytest.mark.parametrize("how", [{"force_match": True}, {"bipartite": True}])
def test_what_a_crowd_covers_is_asked_nothing(how):
    boxes = jnp.array([[0.0, 0, 10, 10], [-5, -5, 35, 15]])
    kind, _ = both(
        assign_max_iou,
        boxes,
        jnp.array([True, True]),
        ROW,
        positive=0.5,
        negative=0.5,
        crowd=jnp.array([False, True]),
        **how,
    )
    assert kind == [1, -1, -1, 0, 0, 0]


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"negative is 0\.6, above positive, which is 0\.5"):
        assign_max_iou(ROW, jnp.ones(6, bool), ROW, positive=0.5, negative=0.6)


POINTS = np.array([[x, y] for y in range(0, 64, 8) for x in range(0, 64, 8)], np.float32)
STRIDES = np.full(len(POINTS), 8, np.float32)
REACH = np.tile(np.float32([0, 30]), (len(POINTS), 1))


def centres(boxes, valid, reach=REACH, **how):
    kind, index = both(
        lambda b, v, **how: assign_centres(b, v, POINTS, STRIDES, reach, **how),
        jnp.array(boxes, jnp.float32),
        jnp.array(valid),
        **how,
    )
    return {tuple(POINTS[i].astype(int)): index[i] for i in range(len(POINTS)) if kind[i] == 1}, kind


def test_points_near_the_centre_answer():
    # Around (24, 24), less than 12 away, and inside.
    found, _ = centres([[4, 4, 44, 44]], [True])
    assert found == {(x, y): 0 for x in (16, 24, 32) for y in (16, 24, 32)}
    # A narrow object has fewer, for they must lie inside of it, and not at its side.
    found, _ = centres([[16, 4, 30, 44]], [True])
    assert found == {(24, y): 0 for y in (16, 24, 32)}


def test_points_answer_for_what_they_reach():
    found, _ = centres([[4, 4, 44, 44]], [True], reach=np.tile(np.float32([0, 21]), (len(POINTS), 1)))
    assert found == {(24, 24): 0}
    found, _ = centres([[4, 4, 44, 44]], [True], reach=np.tile(np.float32([20, 99]), (len(POINTS), 1)))
    assert (24, 24) not in found
    assert len(found) == 8


def test_of_two_objects_the_smaller_one():
    found, _ = centres([[4, 4, 44, 44], [14, 14, 26, 26], [14, 14, 26, 26]], [True, True, True])
    assert found[(16, 16)] == found[(24, 24)] == 1
    assert found[(32, 32)] == 0
    found, _ = centres([[4, 4, 44, 44], [14, 14, 26, 26], [14, 14, 26, 26]], [True, False, False])
    assert set(found.values()) == {0}


def test_no_point_answers_for_padding_and_crowds():
    found, kind = centres([[4, 4, 44, 44], [0, 0, 0, 0]], [False, False])
    assert found == {}
    assert not any(kind)
    found, kind = centres([[4, 4, 44, 44]], [True], crowd=jnp.array([True]))
    assert found == {}
    assert kind.count(-1) == 25


def test_the_hardest_of_the_background():
    losses = jnp.array([5.0, 1.0, 4.0, 9.0, 2.0, 3.0])
    kind = jnp.array([0, 0, 0, -1, 1, 0])
    np.testing.assert_array_equal(hardest_background(losses, kind, ratio=2.0), [1, 0, 1, 0, 0, 0])
    # More than there are: all; none asked for: none.
    np.testing.assert_array_equal(hardest_background(losses, kind, ratio=9.0), kind == 0)
    assert not hardest_background(losses, jnp.array([0, 0, 0, -1, -1, 0]), ratio=3.0).any()
