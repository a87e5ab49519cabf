"""A project for one's own data, from a data file: infer, propose, write, check."""
