import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ylosia_jax.evaluate import compile_predict
from ylosia_jax.train.sharding import make_mesh
from ylosia_jax.types import Detections


class Nothing:
    """A network that hands on what it is shown."""

    def apply(self, variables, image, train):
        return image


@dataclasses.dataclass(frozen=True)
class Three:
    """Finds the same three things in every image."""

    def decode(self, outputs, answers):
        count = len(outputs)
        return Detections(
            boxes=jnp.zeros((count, 3, 4)),
            scores=jnp.ones((count, 3)),
            labels=jnp.tile(jnp.array([0, 1, 2]), (count, 1)),
            valid=jnp.tile(jnp.array([True, True, False]), (count, 1)),
            index=jnp.zeros((count, 3), int),
        )


@dataclasses.dataclass(frozen=True)
class Count:
    """How many things those before it have found."""

    def decode(self, outputs, answers):
        return answers["box"].valid.sum(axis=1)


def test_what_is_not_asked_for_is_not_found_and_takes_no_place_in_what_comes_after():
    predict = compile_predict(Nothing(), {"box": Three(), "count": Count()}, make_mesh(jax.devices()[:1]))
    image = np.zeros((2, 4, 4, 3), np.uint8)
    assert predict({"params": {}}, image)["count"].tolist() == [2, 2]
    known = np.array([[True, True, True], [False, True, True]])
    found = predict({"params": {}}, image, known)
    assert found["box"].valid.tolist() == [[True, True, False], [False, True, False]]
    assert found["count"].tolist() == [2, 1]
