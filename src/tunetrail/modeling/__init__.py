"""The model under the methods: trunk, head, sites, adapter files."""
