"""TuneTrail: which fine-tuning method to use, how sure we are, and the model to ship."""

__version__ = "0.1.0"
