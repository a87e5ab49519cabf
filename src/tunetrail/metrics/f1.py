"""F1 of the positive class of a two-class task (MRPC, QQP)."""

import numpy as np

from tunetrail.metrics import Metric


class F1(Metric):
    """Harmonic mean of precision and recall of class 1."""

    title = "F1"
    only_for = 2

    @staticmethod
    def score(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
        """F1 of class 1; 0 when nothing is predicted or labelled positive."""
        from sklearn.metrics import f1_score

        return float(f1_score(labels, predictions, pos_label=1, zero_division=0.0))
