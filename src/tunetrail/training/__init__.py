"""The training loop and what it needs. Imports no pipeline tool, so any worker can run it."""
