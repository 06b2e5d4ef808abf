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


def other_split(dataset: Dataset, name: str | None, split: str | None) -> Dataset:
    """The dataset that a command line names in place of a config's: another set, another split, or both.

    Args:
      name: an imported set's name or folder, or `scenes`; None keeps the set.
      split: None keeps the split's name.
    """
    if name == "scenes" or (name is None and isinstance(dataset, Scenes)):
        base = dataset if isinstance(dataset, Scenes) else Scenes("validation", size=128)
        return dataclasses.replace(base, split=split or base.split)
    return Imported(name or dataset.name, split or dataset.split)  # type: ignore[union-attr]
