"""The built-in data set: the only module that knows about flowers."""

import numpy as np

from ml.tables.dataset import Dataset, Feature, Shape, Target

TITLES = {
    "sepal length": "largo del sépalo",
    "sepal width": "ancho del sépalo",
    "petal length": "largo del pétalo",
    "petal width": "ancho del pétalo",
}
# Three sepals below, three petals between them, seen from above.
FLOWER = (
    Shape(length="sepal_length", width="sepal_width", angles=(90.0, 210.0, 330.0)),
    Shape(length="petal_length", width="petal_width", angles=(30.0, 150.0, 270.0)),
)


def load_dataset() -> Dataset:
    """Return Fisher's Iris data: 150 flowers of three species, four lengths in cm.

    Source: R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7 (1936),
    in the copy that scikit-learn ships.
    """
    from sklearn.datasets import load_iris

    bunch = load_iris()
    return Dataset(
        name="iris",
        source="Fisher's Iris data (1936): 150 flowers of three species, measured in cm",
        features=tuple(
            Feature(
                key=title.replace(" ", "_"),
                title=title,
                unit="cm",
                header=f"{title} (cm)",
                minimum=0.0,
                titles={"es": spanish},
            )
            for title, spanish in TITLES.items()
        ),
        target=Target(title="species", labels=tuple(str(name) for name in bunch.target_names)),
        rows=bunch.data,
        outcomes=bunch.target.astype(np.float64),
        picture=FLOWER,
    )
