"""The data sections of a recipe: data sets, synthetic sets, in-distribution data and outliers."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from training.recipe.section import Section


class Source(Section):
    """A data set that Hugging Face `datasets.load_dataset` reads, and the rows to use.

    `format` is the builder for the files at `path` (`parquet`, `imagefolder`, `csv`, `json`, `text`), or `hub` if
    `path` is a name on the hub; then `split` is read. `also` lists further files of the same format; their rows follow.
    Relative paths start at the data folder (`--data`, environment variable OOD_DATA). Image paths in a csv or json file
    start at that file's folder.

    `image` or `text` is the column of the inputs, `label` the column of the classes. `only_labels` selects the rows of
    these classes, `exclude_labels` those of all other classes. `part` selects a fraction of the
    rows in a fixed random order: [0, 0.8] and [0.8, 1] are disjoint. `limit` selects at most that many evenly spaced
    rows.
    """

    path: str
    also: tuple[str, ...] = ()
    format: Literal["parquet", "imagefolder", "csv", "json", "text", "hub"] = "parquet"
    split: str = "train"
    image: str = "image"
    text: str = "text"
    label: str | None = None
    only_labels: tuple[str, ...] = ()
    exclude_labels: tuple[str, ...] = ()
    part: tuple[float, float] | None = None
    limit: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _part_is_an_interval(self) -> Self:
        if self.part is not None and not 0 <= self.part[0] < self.part[1] <= 1:
            raise ValueError("part: give two shares, 0 <= from < to <= 1")
        return self

    @model_validator(mode="after")
    def _labels_are_selected_in_one_way(self) -> Self:
        if self.only_labels and self.exclude_labels:
            raise ValueError("only_labels and exclude_labels cannot be combined; list the labels to use in only_labels")
        return self

    def leaves_out(self, label: str) -> bool:
        """Whether `only_labels` or `exclude_labels` leaves out the rows of the class `label`."""
        return label in self.exclude_labels or (bool(self.only_labels) and label not in self.only_labels)


class Synthetic(Section):
    """A synthetic out-of-distribution set, generated from a seed (paper, appendix A).

    The values of noise are stretched to all `pixels`, or are those of the network's `normalised` input, as in the
    authors' code.
    """

    synthetic: str
    size: int = Field(default=4000, ge=1)
    space: Literal["pixels", "normalised"] = "pixels"
    jpeg_quality: int | None = Field(default=75, ge=1, le=100)


_SOURCE, _SYNTHETIC = ALTERNATIVES = ("data set", "synthetic set")
"""The kinds of a set in a recipe. Pydantic inserts the kind into the location of an error."""


def _kind_of_set(config: Any) -> str:
    synthetic = "synthetic" in config if isinstance(config, dict) else isinstance(config, Synthetic)
    return _SYNTHETIC if synthetic else _SOURCE


TestSet = Annotated[
    Annotated[Source, Tag(_SOURCE)] | Annotated[Synthetic, Tag(_SYNTHETIC)], Discriminator(_kind_of_set)
]
"""A data set, or a synthetic set if it has the key `synthetic`."""


class InDistribution(Section):
    """The in-distribution data: train and test sets, and the number of train examples held out for calibration.

    Without `test`, `test_size` train examples are held out for testing, too.
    """

    train: Source
    test: Source | None = None
    test_size: int | None = Field(default=None, ge=1)
    calibration_size: int = Field(default=2000, ge=20)

    @model_validator(mode="after")
    def _one_test_set(self) -> Self:
        if (self.test is None) == (self.test_size is None):
            raise ValueError("give either test, a data set of its own, or test_size, to hold it out of train")
        return self


class Outliers(Section):
    """The auxiliary outliers (D_out^OE), and the policy for outliers that duplicate in-distribution examples."""

    train: TestSet
    duplicates: Literal["refuse", "remove"] = "refuse"
