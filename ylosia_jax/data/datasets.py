"""What a config says of its data, and how that is found."""

import dataclasses

from ylosia_jax.data import store
from ylosia_jax.data.scenes import Scenes
from ylosia_jax.types import Source


@dataclasses.dataclass(frozen=True)
class Imported:
    """A split of a set that `ylosia data import` made.

    Attributes:
      name: of the set under the data root ($YLOSIA_DATA_DIR, else `data/`), or its folder.
      split: as the import named it.
    """

    name: str
    split: str


Dataset = Imported | Scenes


def open_dataset(dataset: Dataset) -> Source:
    """Random access to a split.

    Raises:
      UserError: if the set or the split is not there; names those that are, and the import command.
    """
    return dataset if isinstance(dataset, Scenes) else store.open(dataset.name, dataset.split)
