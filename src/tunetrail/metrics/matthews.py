"""Matthews correlation (CoLA)."""

import numpy as np

from tunetrail.metrics import Metric


class Matthews(Metric):
    """Correlation between labels and predictions, -1 to 1; 0 for constant predictions."""

    title = "Matthews correlation"

    @staticmethod
    def score(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
        """Matthews correlation coefficient, multi-class form."""
        from sklearn.metrics import matthews_corrcoef

        return float(matthews_corrcoef(labels, predictions))
