"""What a config says of its data, and how that is found."""

import dataclasses

from ylosia_jax.data import store
from ylosia_jax.data.mixture import Mixed, renamed
from ylosia_jax.data.scenes import Scenes
from ylosia_jax.types import Source, UserError


@dataclasses.dataclass(frozen=True)
class Imported:
    """A split of a set that `ylosia data import` made.

    Attributes:
      name: of the set under the data root ($YLOSIA_DATA_DIR, else `data/`), or its folder.
      split: as the import named it.
      first: only so many images, from the split's first on; None for all. A network that cannot learn a dozen images
        by heart has an error somewhere.
      names: pairs of a class or stuff of the set and what this run calls it, such as (("red cell", "RBC"),); several of
        one name become one. An empty name leaves its objects out, as background, and its pixels void.
    """

    name: str
    split: str
    first: int | None = None
    names: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.first is not None and self.first < 1:
            raise ValueError(f"first is {self.first}: give at least 1, or None for all images")


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Several splits as one, see `mixture.Mixed`.

    The losses of each are divided by its own objects (`ops.sources`): what a part weighs is how many of the images are
    its, not how crowded they are.

    Attributes:
      parts: the splits.
      weights: how much each contributes to a pass, relative to the others; empty for each image once.
    """

    parts: tuple[Imported | Scenes, ...]
    weights: tuple[float, ...] = ()


Dataset = Imported | Scenes | Mixture


def open_dataset(dataset: Dataset) -> Source:
    """Random access to a split.

    Raises:
      UserError: if the set or the split is not there; names those that are, and the import command.
    """
    if isinstance(dataset, Mixture):
        sources = tuple(map(open_dataset, dataset.parts))
        return Mixed(sources, dataset.weights or tuple(float(len(source)) for source in sources))
    if isinstance(dataset, Scenes):
        return dataset
    source = store.open(dataset.name, dataset.split, first=dataset.first)
    return renamed(source, dataset.names) if dataset.names else source


def other_split(dataset: Dataset, name: str | None, split: str | None) -> Dataset:
    """The dataset that a command line names in place of a config's: another set, another split, or both.

    Args:
      name: an imported set's name or folder, or `scenes`; None keeps the set.
      split: None keeps the split's name.
    """
    if name is None and split is None:
        return dataset
    if name is None:
        if isinstance(dataset, Mixture):
            raise UserError("the run's data is a mixture: name one of its data sets beside --split")
        return dataclasses.replace(dataset, split=split)
    parts = dataset.parts if isinstance(dataset, Mixture) else (dataset,)
    if name == "scenes":
        scenes = (part for part in parts if isinstance(part, Scenes))
        base = next(scenes, Scenes("validation", size=128))
        return dataclasses.replace(base, split=split or base.split)
    own = (part for part in parts if isinstance(part, Imported) and part.name == name)
    base = next(own, Imported(name, parts[0].split if len(parts) == 1 else "val"))
    return Imported(name, split or base.split, names=base.names)
