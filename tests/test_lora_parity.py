"""LoRA against the peft library."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tests.tiny import CLASSES, make_rows, make_spec, move, run_model, write_base
from tunetrail import methods
from tunetrail.modeling.classifier import Classifier

ROWS = make_rows(6, seed=5)
SITES = {"query": "query", "value": "value", "ffn_in": "intermediate.dense"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Without dropout the two libraries' gradients can be compared in training mode.
    changes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return write_base(tmp_path_factory.mktemp("base"), **changes)


class PeftClassifier(nn.Module):
    """peft's LoRA on transformers' own BertModel, mean pooling and a linear head."""

    def __init__(self, base: Path, targets: list[str], rank: int, alpha: int) -> None:
        from transformers import BertModel

        super().__init__()
        trunk = BertModel.from_pretrained(
            base / "model", add_pooling_layer=False, attn_implementation="eager"
        )
        config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, bias="none")
        self.trunk = get_peft_model(trunk, config)
        self.linear = nn.Linear(trunk.config.hidden_size, CLASSES)

    def forward(self, **batch: torch.Tensor) -> torch.Tensor:
        hidden = self.trunk(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return self.linear((hidden * mask).sum(1) / mask.sum(1))


def ours_and_peft(
    base: Path, sites: list[str], rank: int, alpha: int
) -> tuple[Classifier, PeftClassifier]:
    """The same weights in both, A and B both off their starting points."""
    spec = make_spec("lora", {"sites": sites, "rank": rank, "alpha": float(alpha)})
    ours = run_model(spec, base)
    move(ours, scale=0.3)
    theirs = PeftClassifier(base, [SITES[site] for site in sites], rank, alpha)
    theirs.linear.load_state_dict(ours.head.linear.state_dict())
    for name, parameter in low_rank(theirs).items():
        parameter.data.copy_(low_rank(ours)[name].data)
    return ours.double().train(), theirs.double().train()


def low_rank(model: nn.Module) -> dict[str, nn.Parameter]:
    """``LAYER.SITE.a|b`` → parameter, by the names of either library."""
    found = {}
    for name, parameter in model.named_parameters():
        match = re.search(r"layer\.(\d+)\.(.+)\.(?:lora_([AB])\.default\.weight|([ab]))$", name)
        if match:
            layer, path, peft_kind, kind = match.groups()
            found[f"{layer}.{path}.{kind or peft_kind.lower()}"] = parameter
    return found


@pytest.mark.parametrize(
    ("sites", "rank", "alpha"),
    [(["query", "value"], 8, 16), (["query", "value"], 3, 7), (["query", "ffn_in"], 1, 32)],
)
def test_forward_and_gradients_are_those_of_peft(
    base: Path, sites: list[str], rank: int, alpha: int
) -> None:
    ours, theirs = ours_and_peft(base, sites, rank, alpha)
    batch = ROWS.batch(np.arange(len(ROWS)))
    assert int(batch["attention_mask"].min()) == 0, "padding takes part"
    labels = torch.from_numpy(ROWS.labels)
    logits = []
    for model in (ours, theirs):
        logits.append(model(**batch))
        nn.functional.cross_entropy(logits[-1], labels).backward()
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-10)

    mine, reference = low_rank(ours), low_rank(theirs)
    assert mine.keys() == reference.keys()
    assert len(mine) == 2 * 2 * len(sites)
    for name, parameter in mine.items():
        assert parameter.grad.abs().max() > 1e-6, f"{name}: nothing to compare"
        torch.testing.assert_close(parameter.grad, reference[name].grad, rtol=0, atol=1e-10)
    torch.testing.assert_close(
        ours.head.linear.weight.grad, theirs.linear.weight.grad, rtol=0, atol=1e-10
    )


def test_the_merged_weights_are_those_of_peft(base: Path) -> None:
    ours, theirs = ours_and_peft(base, ["query", "value"], 4, 16)
    spec = make_spec("lora", {"sites": ["query", "value"], "rank": 4, "alpha": 16.0})
    methods.resolve("lora", spec.method.options, "test").merge(ours.float())
    merged = theirs.float().trunk.merge_and_unload().state_dict()
    for name, tensor in ours.trunk.state_dict().items():
        torch.testing.assert_close(tensor, merged[name], rtol=0, atol=1e-6)


def test_the_start_is_distributed_as_in_peft(base: Path) -> None:
    spec = make_spec("lora", {"rank": 8})
    mine = low_rank(run_model(spec, base))
    reference = low_rank(PeftClassifier(base, ["query", "value"], 8, 16))
    bound = 1 / np.sqrt(32)  # Kaiming uniform with a = √5 is uniform within ±1/√in
    for parameters in (mine, reference):
        a = torch.cat([p.detach().flatten() for k, p in parameters.items() if k.endswith(".a")])
        assert bound * 0.97 < a.abs().max() <= bound
        assert abs(float(a.std()) - bound / np.sqrt(3)) < 0.05 * bound
        assert all(not p.any() for k, p in parameters.items() if k.endswith(".b"))
