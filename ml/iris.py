"""The built-in data set: the only module that knows about flowers."""

from ml.dataset import Dataset, Feature


def load() -> Dataset:
    """Return Fisher's Iris data: 150 flowers of three species, four lengths in cm.

    Source: R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7 (1936),
    in the copy that scikit-learn ships.
    """
    from sklearn.datasets import load_iris

    bunch = load_iris()
    titles = ("sepal length", "sepal width", "petal length", "petal width")
    return Dataset(
        name="iris",
        source="Fisher's Iris data (1936): 150 flowers of three species, measured in cm",
        features=tuple(Feature(key=t.replace(" ", "_"), title=t, unit="cm", minimum=0.0) for t in titles),
        labels=tuple(str(name) for name in bunch.target_names),
        rows=bunch.data,
        classes=bunch.target,
    )
