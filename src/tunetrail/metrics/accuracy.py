"""Share of predictions that are right."""

import numpy as np

from tunetrail.metrics import Metric


class Accuracy(Metric):
    """Accuracy; for one label a row it equals micro-averaged F1 over all classes."""

    title = "accuracy"

    @staticmethod
    def score(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
        """Share of equal entries."""
        return float(np.mean(labels == predictions))
