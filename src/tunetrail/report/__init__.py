"""Reports: pages, figures and tables from plain data. Nothing here computes a score."""
