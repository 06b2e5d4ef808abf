import numpy as np
import pytest

from ylosia_jax.ops.anchors import default_boxes


def test_one_level_by_hand():
    found = default_boxes({"p3": (1, 2)}, (100, 200), scales=(0.2, 0.8), ratios=((4.0,),), steps=(100,))
    # 0.2 of each side; the root of 0.2 * 0.8; twice as wide as high, relative to the canvas, and the reverse.
    sides = np.array([[40, 20], [80, 40], [80, 10], [20, 40]]) / 2
    for cell, centre in enumerate(([50, 50], [150, 50])):
        expected = np.concatenate([centre - sides, centre + sides], axis=1)
        np.testing.assert_allclose(found[4 * cell : 4 * cell + 4], expected, rtol=1e-6)


def test_none_is_larger_than_the_canvas():
    found = default_boxes({"p8": (1, 1)}, (300, 300), scales=(0.87, 1.05), ratios=((2.0,),), steps=(300,))
    size = found[:, 2:] - found[:, :2]
    assert size.max() == 300
    assert size[2, 1] == pytest.approx(0.87 * 300 / 2**0.5)


def test_levels_follow_each_other():
    shapes = {"p3": (38, 38), "p4": (19, 19)}
    found = default_boxes(shapes, (300, 300), scales=(0.1, 0.2, 0.3), ratios=((2.0,), (2.0, 3.0)), steps=(8, 16))
    assert found.shape == (38 * 38 * 4 + 19 * 19 * 6, 4)
    np.testing.assert_allclose((found[0, :2] + found[0, 2:]) / 2, [4, 4], rtol=1e-5)
    np.testing.assert_allclose((found[38 * 38 * 4, :2] + found[38 * 38 * 4, 2:]) / 2, [8, 8], rtol=1e-5)
