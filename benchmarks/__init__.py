"""Measurements behind every figure in the documentation. Run by hand, never by tests."""
