"""Mean of the F1 of each class, every class weighing the same."""

import numpy as np

from tunetrail.metrics import Metric


class F1Macro(Metric):
    """Macro F1 over the classes that occur among labels or predictions.

    A declared class that occurs in neither has no F1 and does not enter the mean.
    """

    title = "macro-F1"

    @staticmethod
    def score(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
        """Unweighted mean of per-class F1."""
        from sklearn.metrics import f1_score

        return float(f1_score(labels, predictions, average="macro", zero_division=0.0))
