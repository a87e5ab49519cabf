"""Where a registered model comes from: the chain behind it, its check, and its model card."""
