"""What a config says of its data, and how that is found."""

import dataclasses

from ylosia_jax.data import store
from ylosia_jax.data.mixture import Mixed
from ylosia_jax.data.scenes import Scenes
from ylosia_jax.types import Source, UserError


@dataclasses.dataclass(frozen=True)
class Imported:
    """A split of a set that `ylosia data import` made.

    Attributes:
      name: of the set under the data root ($YLOSIA_DATA_DIR, else `data/`), or its folder.
      split: as the import named it.
    """

    name: str
    split: str


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Several splits as one, see `mixture.Mixed`.

    Attributes:
      parts: the splits.
      weights: how much each contributes to a pass, relative to the others.
    """

    parts: tuple[Imported | Scenes, ...]
    weights: tuple[float, ...]


Dataset = Imported | Scenes | Mixture


def open_dataset(dataset: Dataset) -> Source:
    """Random access to a split.

    Raises:
      UserError: if the set or the split is not there; names those that are, and the import command.
    """
    if isinstance(dataset, Mixture):
        return Mixed(tuple(map(open_dataset, dataset.parts)), dataset.weights)
    return dataset if isinstance(dataset, Scenes) else store.open(dataset.name, dataset.split)


def other_split(dataset: Dataset, name: str | None, split: str | None) -> Dataset:
    """The dataset that a command line names in place of a config's: another set, another split, or both.

    Args:
      name: an imported set's name or folder, or `scenes`; None keeps the set.
      split: None keeps the split's name.
    """
    if isinstance(dataset, Mixture):
        if name is None:
            if split is not None:
                raise UserError("the run's data is a mixture: name one of its data sets beside --split")
            return dataset
        dataset = Imported(name, split or "val")
    if name == "scenes" or (name is None and isinstance(dataset, Scenes)):
        base = dataset if isinstance(dataset, Scenes) else Scenes("validation", size=128)
        return dataclasses.replace(base, split=split or base.split)
    return Imported(name or dataset.name, split or dataset.split)  # type: ignore[union-attr]
