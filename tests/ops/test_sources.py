"""Means of a batch of several data sets."""

import jax.numpy as jnp
import numpy as np

from ylosia_jax.ops.sources import mean_of_sources, mean_over_batch, sum_by_source

SOURCE = jnp.array([[True, False], [False, True], [True, False], [True, False]])


def test_every_source_has_its_own_sum():
    values = jnp.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]])
    np.testing.assert_array_equal(sum_by_source(values, SOURCE), [[13, 130], [2, 20]])
    np.testing.assert_array_equal(sum_by_source(values, None), [[15, 150]])
    np.testing.assert_array_equal(sum_by_source(values[:, 0].astype(jnp.int32), SOURCE), [13, 2])


def test_sources_are_weighted_by_their_images():
    np.testing.assert_allclose(mean_of_sources(jnp.array([4.0, 8.0]), SOURCE), 5)
    np.testing.assert_allclose(mean_of_sources(jnp.array([4.0]), None), 4)


def test_what_is_not_finite_stays_in_its_source():
    np.testing.assert_array_equal(sum_by_source(jnp.array([1, jnp.inf, 2, 3]), SOURCE), [6, jnp.inf])


def test_each_source_is_divided_by_its_own_count():
    sums, counts = jnp.array([2.0, 9.0, 4.0, 6.0]), jnp.array([1, 3, 2, 3])
    # 12 / 6 from three images of four, 9 / 3 from one.
    np.testing.assert_allclose(mean_over_batch(sums, counts, SOURCE), 2.25)
    np.testing.assert_allclose(mean_over_batch(sums, counts, None), 21 / 9)
    # A source that has nothing to count adds nothing, and keeps the say of its images.
    np.testing.assert_allclose(mean_over_batch(sums.at[1].set(0), counts.at[1].set(0), SOURCE), 1.5)
