"""The gate: whether a challenger may replace the champion that serves."""
