"""Experiments of published papers as comparisons that are run one after the other, and judged."""
