"""Numbers that methods' authors' code gave, and small models to compare with them.

Each file in tests/golden says which code and commit wrote it, and what is known to differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.tiny import family_config
from tunetrail import methods
from tunetrail.modeling import attention
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.projections import make_plain
from tunetrail.modeling.sites import sites_of

_GOLDEN = Path(__file__).parent / "golden"


def golden(name: str) -> dict[str, Any]:
    """The numbers of a method."""
    content: dict[str, Any] = json.loads((_GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert len(content["commit"]) == 40
    assert content["differences"]
    return content


def tensor(numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def put(module: nn.Module, numbers: Mapping[str, Any]) -> None:
    """Give parameters their numbers, by name."""
    with torch.no_grad():
        for name, values in numbers.items():
            module.get_parameter(name).copy_(tensor(values))


def close(ours: torch.Tensor | None, theirs: Any, atol: float = 1e-10) -> None:
    """The same numbers, whatever the layout of vectors."""
    assert ours is not None
    torch.testing.assert_close(ours, tensor(theirs).view(ours.shape), rtol=0, atol=atol)


def attached(name: str, options: dict[str, Any], **sizes: Any) -> Classifier:
    """A method on a random model of small sizes, in float64."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=8, max_position_embeddings=8, attn_implementation=attention.register(), **sizes
    )
    model = Classifier(BertModel(config, add_pooling_layer=False), config, 2, "mean")
    methods.attach(model, methods.resolve(name, options, "test"), 0)
    return model.double().eval()


def attached_to_family(
    name: str, family: str, options: Mapping[str, Any] | None = None
) -> Classifier:
    """A method on a tiny random model of an architecture."""
    from transformers import AutoModel

    config = family_config(family)
    sites = sites_of(config)
    torch.manual_seed(0)
    trunk = AutoModel.from_config(
        config, attn_implementation=attention.register() if sites.family.prefixes else "eager"
    )
    make_plain(trunk, sites)
    model = Classifier(trunk, config, 2, "mean")
    methods.attach(model, methods.resolve(name, dict(options or {}), "test"), 0)
    return model.eval()
