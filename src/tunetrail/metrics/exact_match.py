"""Share of answers that are right word for word (SQuAD 1.1)."""

from tunetrail.metrics import AnswerMetric
from tunetrail.metrics._answers import words


class ExactMatch(AnswerMetric):
    """Case, punctuation, articles and blanks do not count."""

    title = "exact match"

    @staticmethod
    def agreement(prediction: str, truth: str) -> float:
        """1 where the words are the same, else 0."""
        return float(words(prediction) == words(truth))
