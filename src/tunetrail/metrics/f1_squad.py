"""F1 of the words of answers (SQuAD 1.1)."""

from collections import Counter

from tunetrail.metrics import AnswerMetric
from tunetrail.metrics._answers import words


class F1Squad(AnswerMetric):
    """Harmonic mean of precision and recall of words, as bags; 0 without a common one.

    So it is 0 where neither answer has a word left ("The"), as in the official script.
    """

    title = "answer F1"

    @staticmethod
    def agreement(prediction: str, truth: str) -> float:
        """F1 of the two bags of words."""
        found, wanted = words(prediction), words(truth)
        common = sum((Counter(found) & Counter(wanted)).values())
        return 2 * common / (len(found) + len(wanted)) if common else 0.0
