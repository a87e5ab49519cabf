"""Prefect flows over TuneTrail's stages. The only place that imports Prefect."""
