"""How many parameters a method trains on a base model, from its configuration alone."""

from __future__ import annotations

from typing import Any

import torch

from tunetrail.methods import Method, attach
from tunetrail.modeling import attention
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.projections import make_plain
from tunetrail.modeling.sites import sites_of


def trained_parameters(method: Method, config: Any, pooling: str) -> int:
    """Parameters that are saved besides the head.

    The model is built without numbers (on the meta device), so a large one costs no more.

    Args:
        method: With its options.
        config: transformers' configuration of the base model.
        pooling: What the head reads: a pooler counts only where it does.

    Raises:
        TuneTrailError: The method cannot be attached to this model.
    """
    from transformers import AutoModel

    sites = sites_of(config)
    implementation = attention.register() if sites.family.prefixes else "eager"
    with torch.device("meta"):
        trunk = AutoModel.from_config(config, attn_implementation=implementation)
        if pooling != "cls":
            trunk.pooler = None
        make_plain(trunk, sites)
        model = Classifier(trunk, config, classes=2, pooling=pooling)
        attach(model, method, seed=0)
        method.fold(model)
    return sum(p.numel() for name, p in model.trained().items() if not name.startswith("head."))
