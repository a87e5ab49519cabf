"""The stages of the pipeline, one module each: a plain function from a spec and paths to files."""
