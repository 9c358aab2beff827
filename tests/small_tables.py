"""Models of tables as people have them: words, missing values, yes and no, quantities."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from ml.model.card import Recipe
from ml.model.loaded import LoadedModel
from ml.tables.dataset import Dataset, Feature, Target
from ml.training import fitting, writing

RECIPE = Recipe(n_estimators=7)
N_ROWS = 240
# A word that wants to be something else in a shell, a program, a table or a page.
HOSTILE = """it's "$HOME", `date` \\ %s </script>"""


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
        Feature(
            key="island",
            title="island",
            header="Island",
            choices=("Biscoe", "Dream", "Torgersen"),
            titles={"es": "isla"},
        ),
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
        Feature(key="colour", title="colour", header="Colour", choices=("D", "E <é", HOSTILE)),
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


def survey(n: int = 240) -> Dataset:
    """Words and headers as long as sentences, and columns that are called as parts of a page are."""
    rng = np.random.default_rng(5)
    answer, town = rng.integers(0, 4, n), rng.integers(0, 6, n)
    language, height, records, action = rng.normal(5, 2, (4, n)).round(1)
    answers = (
        "I strongly agree with this statement, and I would say so to anybody who asks",
        "I agree with it in most situations, but there are some important exceptions",
        "I neither agree nor disagree, or I have never thought about it in my life",
        "I disagree with it, and Donaudampfschifffahrtsgesellschaftskapitänsmützen too",
    )
    towns = ("Frankfurt am Main (Sachsenhausen)", "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch", "Ulm",
             "Kraków, Stare Miasto", "L'Aquila", "Zürich Nord")  # fmt: skip
    question = "How far do you agree that the opening hours of the municipal library are long enough (choose one)"
    labels = ("would very probably come back again within the next twelve months", "Unentschlossenheitsbekundung", "no")
    score = answer + (language > 5) + (height > 6)
    return Dataset(
        name="survey",
        source="Made up",
        features=(
            Feature(key="question", title=question, header=question, choices=answers),
            Feature(key="town", title="town", header="town", choices=towns),
            Feature(key="lang", title="lang", header="lang"),
            Feature(key="map_y", title="map-y", header="map-y"),
            Feature(key="dataset", title="dataset", header="dataset"),
            Feature(key="action", title="action", header="action"),
        ),
        target=Target(title="intention", labels=labels),
        rows=np.column_stack([answer, town, language, height, records, action]).astype(float),
        outcomes=np.clip(score // 2, 0, 2).astype(float),
    )


def _number(title: str, unit: str, *, has_gaps: bool = False) -> Feature:
    header = f"{title} ({unit})" if unit else title
    return Feature(key=title.replace(" ", "_"), title=title, unit=unit, header=header, has_gaps=has_gaps)


# One of each kind: classes and quantities, with and without words.
KINDS = ("penguins", "answers", "prices", "distances")
DATASETS = {make.__name__: make for make in (penguins, answers, prices, distances, cars, crops, spectra, survey)}


@cache
def trained(name: str) -> fitting.Trained:
    """Return the fitted model of a data set: the oracle."""
    return fitting.fit(DATASETS[name](), RECIPE)


def written(name: str, folder: Path) -> LoadedModel:
    """Write the model of a data set to a file in a folder, `penguins.npz` for example, and load it."""
    return writing.write(writing.model_of(trained(name)), folder / f"{name}.npz", trained=trained(name))


def file_of(name: str, folder: Path) -> Path:
    """Write such a file and return its path."""
    written(name, folder)
    return folder / f"{name}.npz"
