"""Models of tables as people have them: words, missing values, yes and no, quantities."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from ml.model.card import Recipe
from ml.model.classifier import Classifier
from ml.tables.dataset import Dataset, Feature, Target
from ml.training import fitting, writing

RECIPE = Recipe(n_estimators=7)
N_ROWS = 240


def penguins() -> Dataset:
    """Three species by two categories and two numbers; the sex and the bill may be missing."""
    chance = np.random.default_rng(0)
    species = np.arange(N_ROWS) % 3
    island = (species + (chance.random(N_ROWS) < 0.3)) % 3
    sex = chance.integers(0, 2, N_ROWS).astype(float)
    bill = (38 + 5 * species + 2 * sex + chance.normal(0, 2, N_ROWS)).round(1)
    mass = (3_700 + 600 * (species == 1) + 300 * sex + chance.normal(0, 200, N_ROWS)).round()
    sex[::11] = bill[5::13] = np.nan
    features = (
        Feature(key="island", title="island", header="Island", choices=("Biscoe", "Dream", "Torgersen")),
        Feature(key="sex", title="sex", header="sex", choices=("female", "male"), has_gaps=True, markers=("NA",)),
        Feature(key="bill_length", title="bill length", header="Bill length (mm)", unit="mm", has_gaps=True),
        Feature(key="body_mass", title="body mass", header="Body mass (g)", unit="g", minimum=0.0),
    )
    target = Target(title="species", labels=("Adelie", "Gentoo", "Chinstrap"))
    rows = np.column_stack([island, sex, bill, mass])
    return Dataset("penguins", "made up", features, target, rows, species.astype(float))


def answers() -> Dataset:
    """Yes or no, by two booleans that are written in two ways, and a number."""
    chance = np.random.default_rng(1)
    smoker, active = chance.integers(0, 2, (2, N_ROWS)).astype(float)
    age = chance.integers(18, 90, N_ROWS).astype(float)
    features = (
        Feature(key="smoker", title="smoker", header="smoker", choices=("no", "yes")),
        Feature(key="active", title="active", header="active", choices=("False", "True")),
        Feature(key="age", title="age", header="age", unit="years", minimum=0.0),
    )
    ill = (age / 90 + 0.4 * smoker - 0.3 * active + chance.normal(0, 0.1, N_ROWS) > 0.6).astype(float)
    target = Target(title="ill", labels=("no", "yes"))
    return Dataset("answers", "made up", features, target, np.column_stack([smoker, active, age]), ill)


def prices() -> Dataset:
    """A quantity by a category and a number that may be missing."""
    chance = np.random.default_rng(2)
    colour = chance.integers(0, 3, N_ROWS).astype(float)
    carat = chance.uniform(0.2, 3, N_ROWS).round(2)
    price = (400 * carat**2 + 90 * colour + chance.normal(0, 20, N_ROWS)).round(2)
    carat[::9] = np.nan
    features = (
        Feature(key="colour", title="colour", header="Colour", choices=("D", "E <", 'F, "x"')),
        Feature(key="carat", title="carat", header="carat", has_gaps=True, markers=("?",)),
    )
    return Dataset(
        "prices", "made up", features, Target(title="price", unit="€"), np.column_stack([colour, carat]), price
    )


def distances() -> Dataset:
    """A quantity by two numbers, of which one may be missing; it may be negative."""
    chance = np.random.default_rng(3)
    x, y = chance.normal(0, 2, (2, N_ROWS)).round(2)
    distance = (x - y + chance.normal(0, 0.2, N_ROWS)).round(3)
    x[::7] = np.nan
    features = (Feature(key="x", title="x", header="X", has_gaps=True), Feature(key="y", title="y", header="Y"))
    return Dataset(
        "distances", "made up", features, Target(title="distance", unit="km"), np.column_stack([x, y]), distance
    )


DATASETS = {make.__name__: make for make in (penguins, answers, prices, distances)}


@cache
def trained(name: str) -> fitting.Trained:
    """Return the fitted model of a data set: the oracle."""
    return fitting.fit(DATASETS[name](), RECIPE)


def written(name: str, folder: Path) -> Classifier:
    """Write the model of a data set to a file in a folder, `penguins.npz` for example, and load it."""
    return writing.write(writing.model_of(trained(name)), folder / f"{name}.npz", trained=trained(name))
