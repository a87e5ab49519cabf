"""DyT against the authors' code (tests/golden), and its two ways of predicting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny import (
    logits_of,
    make_rows,
    make_spec,
    move,
    run_model,
    write_family,
)
from tunetrail import methods
from tunetrail.modeling import routing
from tunetrail.modeling.bottleneck import Bottleneck
from tunetrail.modeling.classifier import Classifier, build_classifier
from tunetrail.modeling.routing import Entrance, Exit, Router, routers
from tunetrail.training.loop import fit

GOLDEN = Path(__file__).parent / "golden" / "dyt.json"
ROWS = make_rows(12, seed=3)

pytestmark = pytest.mark.usefixtures("in_empty_folder", "fresh_accelerate")

# -- the authors' code ----------------------------------------------------------------------------


class Sublayer(nn.Module):
    """A feed-forward sublayer with its residual, behind our router."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        down, up = weights["adaptmlp.down_proj.weight"], weights["adaptmlp.up_proj.weight"]
        adapter = Bottleneck(size=up.shape[0], bottleneck=down.shape[0], activation=nn.ReLU())
        mask = torch.ones(2, 4, dtype=torch.int64)
        self.router = Router(adapter, up.shape[0], 5.0, lambda: (mask, 0), skips=True)
        first, last = weights["mlp.0.weight"], weights["mlp.2.weight"]
        self.first = Entrance(nn.Linear(first.shape[1], first.shape[0]), self.router)
        self.last = Exit(nn.Linear(last.shape[1], last.shape[0]), self.router)
        self.double()
        self.places = {
            "mlp.0": self.first.base, "mlp.2": self.last.base, "adaptmlp.down_proj": adapter.down,
            "adaptmlp.up_proj": adapter.up, "mlp_token_select.mlp_head": self.router.gate,
        }  # fmt: skip
        with torch.no_grad():
            for name, module in self.places.items():
                module.weight.copy_(weights[f"{name}.weight"])
                module.bias.copy_(weights[f"{name}.bias"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.last(nn.functional.gelu(self.first(x)))
        return out


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def same(found: torch.Tensor, expected: Any) -> None:
    torch.testing.assert_close(found.detach(), tensor(expected), rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_sublayer_is_that_of_the_authors(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    expected = golden["outputs"][mode]
    layer = Sublayer({name: tensor(v) for name, v in golden["weights"].items()})
    layer.train(mode == "train")
    if mode == "train":
        # The authors draw no noise for the first token, whose gate is always open.
        noise = nn.functional.pad(tensor(expected["noise"]), (0, 0, 1, 0))
        monkeypatch.setattr(routing, "gumbel_noise", lambda logits: noise)
    x, weight = (tensor(golden["inputs"][name]) for name in ("x", "weight"))
    y = layer(x)
    same(y, expected["y"])
    same(layer.router._open.squeeze(-1), expected["select"])
    penalty = 2.0 * (layer.router.share - 0.5) ** 2
    same(penalty, expected["penalty"])
    ((y * weight).sum() + penalty).backward()
    for name, module in layer.places.items():
        same(module.weight.grad, expected["gradients"][f"{name}.weight"])
        same(module.bias.grad, expected["gradients"][f"{name}.bias"])
    if mode == "eval":
        with torch.no_grad():
            same(layer(x), expected["y"])  # tokens left out


def test_the_golden_noise_moves_a_gate() -> None:
    outputs = json.loads(GOLDEN.read_text(encoding="utf-8"))["outputs"]
    assert outputs["train"]["select"] != outputs["eval"]["select"]


def test_the_noise_is_the_difference_of_two_gumbels() -> None:
    torch.manual_seed(3)
    noise = routing.gumbel_noise(torch.empty(200_000, dtype=torch.float64))
    assert abs(float(noise.mean())) < 0.02
    assert float(noise.var()) == pytest.approx(torch.pi**2 / 3, rel=0.02)  # the logistic's
    torch.manual_seed(3)
    assert torch.equal(noise, routing.gumbel_noise(torch.empty(200_000, dtype=torch.float64)))


# -- predicting -----------------------------------------------------------------------------------


def move_with_gates_half_open(model: Classifier) -> None:
    move(model, scale=0.3)
    for router in routers(model).values():
        nn.init.zeros_(router.gate.bias)


def tokens_of(model: Classifier) -> list[int]:
    """Filled with the tokens that each feed-forward sublayer computes."""
    seen: list[int] = []
    for path in model.sites.paths("ffn_in"):
        model.module(path).base.register_forward_pre_hook(
            lambda _m, args: seen.append(args[0].numel() // args[0].shape[-1])
        )
    return seen


@pytest.mark.parametrize(
    "family", ["bert", "distilbert", "electra", "albert", "modernbert", "gpt2", "deberta-v2"]
)
def test_leaving_tokens_out_is_the_same_as_multiplying_by_zero(family: str, tmp_path: Path) -> None:
    folder = write_family(tmp_path, family)
    logits, sizes = [], []
    for skip in (False, True):
        model = build_classifier(folder, 3, "mean", 0)
        methods.attach(model, methods.resolve("dyt", {"skip": skip}, "test"), seed=1)
        move(model, scale=0.3)
        entered = tokens_of(model)
        logits.append(logits_of(model, ROWS))
        sizes.append(entered)
        shares = methods.resolve("dyt", {}, "test").observe(model)
        assert 0.05 < np.mean(list(shares.values())) < 0.95, shares
    torch.testing.assert_close(*logits, rtol=0, atol=2e-6)
    tokens = len(ROWS) * int(ROWS.lengths.max())
    assert set(sizes[0]) == {tokens}
    assert max(sizes[1]) < 0.9 * tokens, "nothing was left out"


def test_where_a_second_projection_reads_the_input_nothing_is_left_out(tmp_path: Path) -> None:
    model = build_classifier(write_family(tmp_path, "llama"), 3, "last", 0)
    methods.attach(model, methods.resolve("dyt", {}, "test"), seed=1)
    move_with_gates_half_open(model)
    assert logits_of(model, ROWS).isfinite().all()
    assert not any(router.skips for router in routers(model).values())


def test_the_first_token_always_enters_also_behind_virtual_tokens(base: Path) -> None:
    from tunetrail.modeling.prompts import SoftPrompt

    model = run_model(make_spec("dyt", {"skip": False}), base)
    for router in routers(model).values():
        nn.init.constant_(router.gate.bias, -100.0)
    logits_of(model, ROWS)
    opened = [router._open.squeeze(-1) for router in routers(model).values()]
    for gate in opened:
        assert gate[:, 0].min() == 1
        assert gate[:, 1:].max() == 0
    model.prompt = SoftPrompt(torch.zeros(3, 32))
    logits_of(model, ROWS)
    for router in routers(model).values():
        gate = router._open.squeeze(-1)
        assert gate[:, 3].min() == 1
        assert gate.sum() == len(ROWS)


# -- training -------------------------------------------------------------------------------------


def test_padding_is_not_counted(base: Path) -> None:
    model = run_model(make_spec("dyt"), base).train()
    batch = ROWS.batch(np.arange(len(ROWS)))
    torch.manual_seed(1)
    model(**batch)
    router = next(iter(routers(model).values()))
    real = batch["attention_mask"].bool()
    real[:, 0] = False
    entered = router._open.detach().squeeze(-1)
    share = float(router.share.detach())
    assert share == pytest.approx(float(entered[real].mean()), abs=1e-6)
    assert share != pytest.approx(float(entered[:, 1:].mean()), abs=1e-3)


@pytest.mark.parametrize("target", [0.2, 0.8])
def test_training_moves_the_share_towards_its_target(target: float, base: Path) -> None:
    spec = make_spec(
        "dyt",
        {"target": target, "weight": 50.0, "tau": 1.0},
        budget={"epochs": 12},
        training={"schedule": "constant"},
    )
    model = run_model(spec, base)
    method = methods.resolve("dyt", spec.method.options, "test")
    history = fit(model, spec, 3e-2, make_rows(48), make_rows(12, seed=1), method=method)
    shares = [np.mean(list(seen.values())) for _, seen in history["observed"]]
    assert len(shares) == 12
    assert abs(shares[-1] - target) < 0.2, shares
    assert abs(shares[-1] - target) < abs(shares[0] - target) + 0.02


def test_the_same_seed_draws_the_same_noise(base: Path) -> None:
    spec = make_spec("dyt", budget={"steps": 3})
    method = methods.resolve("dyt", spec.method.options, "test")
    states = []
    for _ in range(2):
        model = run_model(spec, base)
        torch.rand(7)
        fit(model, spec, 1e-2, make_rows(24), make_rows(6, seed=1), method=method)
        states.append(model.state_dict())
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_the_parameters_are_counted_by_the_formula(base: Path) -> None:
    trained = run_model(make_spec("dyt", {"width": 5}), base).trained()
    own = sum(p.numel() for k, p in trained.items() if not k.startswith("head."))
    assert own == 2 * ((2 * 32 * 5 + 5 + 32) + 32 + 1)
