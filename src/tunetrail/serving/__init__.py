"""Exported models at work: an HTTP service, and predictions for the rows of a file."""
