"""Linear correlation of predictions and labels (STS-B)."""

import numpy as np

from tunetrail.metrics import Metric


class Pearson(Metric):
    """Correlation from -1 to 1; 0 where one side is constant and it has no value."""

    title = "Pearson r"
    scores = "a number"

    @staticmethod
    def score(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
        """Correlation of the two."""
        from scipy.stats import pearsonr

        if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
            return 0.0
        return float(pearsonr(labels, predictions).statistic)
