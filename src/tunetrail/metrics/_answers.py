"""What counts as the same answer in SQuAD 1.1 (Rajpurkar et al., arXiv 1606.05250)."""

import re
import string

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def words(answer: str) -> list[str]:
    """The words that are compared: lower case, without punctuation and then without articles."""
    return _ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split()
