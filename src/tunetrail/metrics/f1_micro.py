"""F1 over all decisions together (ChemProt, RCT)."""

import numpy as np

from tunetrail.metrics import Metric


class F1Micro(Metric):
    """Micro F1 over all declared classes."""

    title = "micro-F1"

    @staticmethod
    def score(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
        """F1 of the pooled counts of true and false positives and negatives."""
        from sklearn.metrics import f1_score

        return float(
            f1_score(labels, predictions, labels=range(classes), average="micro", zero_division=0.0)
        )
