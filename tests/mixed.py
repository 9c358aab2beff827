"""Data sets of words, gaps and quantities, made by hand: what any table may have, without a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.model import classifier
from ml.model.card import Recipe
from ml.model.classifier import Classifier
from ml.tables.dataset import Dataset, Feature, Target
from ml.training import fitting, writing

Column = NDArray[np.float64]


def penguins(n: int = 300) -> Dataset:
    """Three species by island, sex and four sizes; some birds were not measured, more were not sexed."""
    rng = np.random.default_rng(1)
    species = rng.choice(3, n, p=[0.44, 0.2, 0.36])
    island = np.array([rng.choice(3, p=[[0.3, 0.35, 0.35], [0, 1, 0], [1, 0, 0]][kind]) for kind in species])
    sex = rng.integers(0, 2, n)
    sizes = np.array([[38.8, 18.3, 190, 3700], [48.8, 18.4, 196, 3730], [47.5, 15.0, 217, 5080]])[species]
    sizes = sizes + sex[:, None] * [3.5, 1.2, 6, 600] + rng.normal(size=(n, 4)) * [1.9, 0.9, 5, 280]
    numbers = np.round(sizes / [0.1, 0.1, 1, 25]) * [0.1, 0.1, 1, 25]
    numbers = numbers.round(1)
    rows = np.column_stack([island, numbers, sex]).astype(float)
    rows[rng.random(n) < 0.05, 1:5] = np.nan
    rows[rng.random(n) < 0.08, 5] = np.nan
    return Dataset(
        name="penguins",
        source="Made up after the penguins of Palmer Station",
        features=(
            Feature(key="island", title="island", header="island", choices=("Biscoe", "Dream", "Torgersen"),
                    titles={"es": "isla"}),
            _number("bill length", "mm", has_gaps=True),
            _number("bill depth", "mm", has_gaps=True),
            _number("flipper length", "mm", has_gaps=True),
            _number("body mass", "g", has_gaps=True),
            Feature(key="sex", title="sex", header="sex", choices=("female", "male"), has_gaps=True, markers=("NA",)),
        ),
        target=Target(title="species", labels=("Adelie", "Chinstrap", "Gentoo")),
        rows=rows,
        outcomes=species.astype(float),
    )  # fmt: skip


def passengers(n: int = 400) -> Dataset:
    """Yes or no by class, sex, age, fare and port: mostly words, and ages that nobody wrote down."""
    rng = np.random.default_rng(2)
    sex, klass, port = rng.integers(0, 2, n), rng.choice(3, n, p=[0.25, 0.2, 0.55]), rng.choice(3, n, p=[0.2, 0.1, 0.7])
    alone = rng.integers(0, 2, n)
    age = np.round(np.clip(rng.normal(30, 14, n), 1, 80))
    fare = np.round(np.exp(rng.normal(3.3 - 0.8 * klass, 0.6)), 2)
    score = 1.6 - 2.2 * sex - 0.7 * klass + 0.02 * (30 - age) + rng.normal(size=n) * 0.6
    age[rng.random(n) < 0.2] = np.nan
    return Dataset(
        name="passengers",
        source="Made up after the passengers of the Titanic",
        features=(
            Feature(key="class", title="class", header="Class", choices=("first", "second", "third")),
            Feature(key="sex", title="sex", header="Sex", choices=("female", "male")),
            _number("age", "", has_gaps=True, markers=("?",)),
            _number("fare", "£"),
            Feature(key="alone", title="alone", header="alone", choices=("no", "yes")),
            Feature(key="port", title="port", header="port", choices=("Cherbourg", "Queenstown", "Southampton"),
                    has_gaps=True),
        ),
        target=Target(title="survived", labels=("no", "yes")),
        rows=np.column_stack([klass, sex, age, fare, alone, port]).astype(float),
        outcomes=(score > 0).astype(float),
    )  # fmt: skip


def crops(n: int = 600) -> Dataset:
    """Ten columns with twenty words each, all of which may lack a value, and five labels."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 20, (n, 10)).astype(float)
    score = codes[:, 0] / 2 + 3 * (codes[:, 1] > 9) + 2 * (codes[:, 3] < 5) + rng.normal(size=n)
    codes[rng.random(codes.shape) < 0.1] = np.nan
    titles = ["region", "soil", "seed", "farmer", "tractor", "method", "previous crop", "treatment", "store", "buyer"]
    return Dataset(
        name="crops",
        source="Made up",
        features=tuple(
            Feature(key=title.replace(" ", "_"), title=title, header=title, has_gaps=True, markers=("?",),
                    choices=tuple(f"{title.split()[0]} {chr(97 + code)}" for code in range(20)))
            for title in titles
        ),
        target=Target(title="grade", labels=("A", "B", "C", "D", "E")),
        rows=codes,
        outcomes=np.asarray(np.clip(score // 3, 0, 4), dtype=np.float64),
    )  # fmt: skip


def spectra(n: int = 400) -> Dataset:
    """Thirty numbers, some of them named as programs name them, and ten labels."""
    rng = np.random.default_rng(4)
    label = rng.integers(0, 10, n)
    rows = np.round(rng.normal(size=(n, 30)) + np.outer(label, rng.random(30)) * 0.5, 4) * np.logspace(-2, 4, 30)
    return Dataset(
        name="spectra",
        source="Made up",
        features=tuple(_number(f"band {number} mean", "nm" if number % 2 else "") for number in range(1, 31)),
        target=Target(title="material", labels=tuple(f"material {chr(97 + k)}" for k in range(10))),
        rows=rows,
        outcomes=label.astype(float),
    )


def houses(n: int = 500) -> Dataset:
    """A price by numbers alone."""
    rng = np.random.default_rng(5)
    area, rooms = np.round(rng.gamma(9, 13, n)), rng.integers(1, 8, n)
    age, distance = rng.integers(0, 100, n), np.round(rng.gamma(2, 4, n), 1)
    price = 60_000 + 2_100 * area + 9_000 * rooms - 700 * age - 6_000 * distance + rng.normal(size=n) * 22_000
    return Dataset(
        name="houses",
        source="Made up",
        features=(
            _number("area", "m²", minimum=0.0),
            _number("rooms", ""),
            _number("age", "years", minimum=0.0),
            _number("distance to centre", "km"),
        ),
        target=Target(title="price", unit="€"),
        rows=np.column_stack([area, rooms, age, distance]).astype(float),
        outcomes=np.asarray(np.clip(price, 25_000, None), dtype=np.float64).round(-2),
    )


def cars(n: int = 400) -> Dataset:
    """Miles per gallon by words, numbers and gaps."""
    rng = np.random.default_rng(6)
    fuel, drive, maker = rng.choice(3, n, p=[0.6, 0.3, 0.1]), rng.integers(0, 2, n), rng.integers(0, 9, n)
    weight = np.round(rng.normal(1450, 280, n) / 10) * 10
    power = np.round(weight * 0.08 + rng.normal(size=n) * 15)
    mpg = 62 - 0.02 * weight - 0.04 * power + np.array([0, 6, 16])[fuel] - 2 * drive + (maker % 3) + rng.normal(size=n)
    power[rng.random(n) < 0.1] = np.nan
    makers = ("Audi", "BMW", "Citroën", "Dacia", "Fiat", "Ford", "Škoda", "Toyota", "Volkswagen")
    return Dataset(
        name="cars",
        source="Made up",
        features=(
            Feature(key="fuel", title="fuel", header="fuel", choices=("petrol", "diesel", "electric")),
            Feature(key="all_wheels", title="all-wheel drive", header="all wheels", choices=("False", "True")),
            Feature(key="maker", title="maker", header="maker", choices=makers, has_gaps=True, markers=("?",)),
            Feature(key="weight", title="weight", unit="kg", header="weight (kg)", thousands=","),
            _number("power", "kW", has_gaps=True),
        ),
        target=Target(title="consumption", unit="mpg"),
        rows=np.column_stack([fuel, drive, maker, weight, power]).astype(float),
        outcomes=np.round(mpg, 1),
    )


def _number(
    title: str, unit: str, *, has_gaps: bool = False, minimum: float | None = None, markers: tuple[str, ...] = ()
) -> Feature:
    header = f"{title} ({unit})" if unit else title
    key = title.replace(" ", "_")
    return Feature(key=key, title=title, unit=unit, header=header, has_gaps=has_gaps, minimum=minimum, markers=markers)


DATASETS = {make.__name__: make for make in (penguins, passengers, crops, spectra, houses, cars)}


def write(name: str, folder: Path, *, n_estimators: int = 20) -> Path:
    """Train one of the data sets and return the path of its model file."""
    trained = fitting.fit(DATASETS[name](), Recipe(n_estimators=n_estimators))
    path = folder / f"{name}.npz"
    writing.write(writing.model_of(trained), path, trained=trained)
    return path


def model_of(name: str, folder: Path, *, n_estimators: int = 20) -> Classifier:
    """Return such a model, loaded from its file."""
    return classifier.load(write(name, folder, n_estimators=n_estimators))
