"""PaFi against full fine-tuning with a mask on the gradients, which is its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny import bare_model, logits_of, make_rows, make_spec, move, run_model
from tunetrail import methods
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.sparse import smallest

ROWS = make_rows(6, seed=5)


def eligible(model: Classifier) -> dict[str, nn.Parameter]:
    """Everything but the tables of embeddings, by what the parameters are called."""
    named = model.trunk.named_parameters()
    return {k: p for k, p in named if not k.endswith("embeddings.weight")}


def masks_of(model: Classifier, share: float, within: str) -> dict[str, np.ndarray]:
    """The definition, by sorting."""
    found = {k: p.detach().numpy() for k, p in eligible(model).items()}
    groups = [list(found)] if within == "model" else [[k] for k in found]
    masks = {}
    for group in groups:
        values = np.sort(np.concatenate([np.abs(found[k]).ravel() for k in group]))
        bound = values[max(1, round(share * len(values))) - 1]
        masks |= {k: np.abs(found[k]) <= bound for k in group}
    return masks


@pytest.mark.parametrize(("share", "within"), [(0.005, "model"), (0.1, "model"), (0.1, "tensor")])
def test_the_entries_of_smallest_magnitude_change_and_no_other(
    share: float, within: str, base: Path
) -> None:
    spec = make_spec("pafi", {"share": share, "within": within})
    model, bare = run_model(spec, base), bare_model(spec, base)
    masks = masks_of(bare, share, within)
    move(model, scale=1.0)
    methods.resolve("pafi", spec.method.options, "test").merge(model)
    before, after = dict(bare.trunk.named_parameters()), dict(model.trunk.named_parameters())
    for name, tensor in after.items():
        changed = (tensor != before[name]).numpy()
        expected = masks.get(name, np.zeros(changed.shape, dtype=bool))
        np.testing.assert_array_equal(changed, expected, err_msg=name)
    assert sum(mask.sum() for mask in masks.values()) > 50


def test_gradients_are_those_of_full_fine_tuning_at_the_chosen_entries(base: Path) -> None:
    spec = make_spec("pafi", {"share": 0.05})
    ours, full = (run_model(spec, base).double().eval() for _ in range(2))
    move(ours)
    move(full)
    methods.resolve("pafi", spec.method.options, "test").merge(full)
    full.trunk.requires_grad_(True)
    batch, labels = ROWS.batch(np.arange(len(ROWS))), torch.from_numpy(ROWS.labels)
    for model in (ours, full):
        nn.functional.cross_entropy(model(**batch), labels).backward()
    theirs = dict(full.trunk.named_parameters())
    compared = 0
    for name, module in ours.trunk.named_modules():
        for tensor, steps in getattr(module, "parametrizations", {}).items():
            reference = theirs[f"{name}.{tensor}"].grad.flatten()[steps[0].index]
            torch.testing.assert_close(steps[0].change.grad, reference, rtol=0, atol=1e-12)
            compared += len(reference)
    assert compared == round(0.05 * sum(p.numel() for p in eligible(full).values()))


def test_the_adapter_holds_one_number_for_each_entry(base: Path) -> None:
    bare = bare_model(make_spec(), base)
    count = sum(p.numel() for p in eligible(bare).values())
    everything = sum(p.numel() for p in bare.trunk.parameters())
    for options, expected in (
        ({"share": 0.01}, round(0.01 * count)),
        ({"share": 0.01, "embeddings": True}, round(0.01 * everything)),
        ({"share": 1e-9}, 1),
        ({"share": 1.0}, count),
    ):
        trained = run_model(make_spec("pafi", options), base).trained()
        own = [p for name, p in trained.items() if not name.startswith("head.")]
        assert sum(p.numel() for p in own) == expected, options


def test_of_equal_magnitudes_the_first_are_taken() -> None:
    tensors = [torch.tensor([3.0, -1.0, 0.0]), torch.tensor([[0.0, 1.0], [0.0, 2.0]])]
    assert [i.tolist() for i in smallest(tensors, 2 / 7)] == [[2], [0]]
    assert [i.tolist() for i in smallest(tensors, 4 / 7)] == [[1, 2], [0, 2]]


def test_the_entries_follow_from_the_base_model_alone(base: Path) -> None:
    one, two = (run_model(make_spec("pafi", seed=seed), base) for seed in (1, 2))
    places = [[b for n, b in model.named_buffers() if n.endswith(".index")] for model in (one, two)]
    assert all(torch.equal(a, b) for a, b in zip(*places, strict=True))
    assert not any(name.endswith(".index") for name in one.state_dict())
    assert torch.equal(logits_of(one, ROWS), logits_of(bare_with_head_of(one, base), ROWS)), (
        "starts at the base model"
    )


def bare_with_head_of(model: Classifier, base: Path) -> Classifier:
    bare = bare_model(make_spec(), base)
    bare.head.load_state_dict(model.head.state_dict())
    return bare
