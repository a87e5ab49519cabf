"""Methods on architectures: two for each in the usual tests, every pair with ``--full-matrix``.

A pair either works (gradients for all that trains, save, load, merge, ONNX) or is refused when the
run is planned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import logits_of, make_rows, move, write_family
from tunetrail import methods
from tunetrail.errors import TuneTrailError
from tunetrail.methods._count import trained_parameters
from tunetrail.modeling.adapter import load_adapter, save_adapter
from tunetrail.modeling.base import check_base
from tunetrail.modeling.classifier import Classifier, build_classifier
from tunetrail.modeling.sites import FAMILIES
from tunetrail.stages import export

ROWS = make_rows(5, seed=3)
NAMES = methods.names()
OWNER = {"run": "r" * 64, "base": "b" * 64}

#: What a method needs to fit a model that is 32 wide.
SMALLER: dict[str, dict[str, Any]] = {"arc": {"rank": 4}}

#: Method and architecture → why a plan refuses the pair.
REFUSED: dict[tuple[str, str], str] = {
    **{(m, f): "takes no prefix"
       for f in ("mpnet", "deberta-v2") for m in ("prefix_tuning", "unipelt", "unipelt_prompt")},
    **{("lorta", f): "one tensor needs 32 of both" for f in ("llama", "qwen2", "qwen3")},
    **{(m, f): "has no biases to train"
       for f in ("llama", "modernbert", "qwen3") for m in ("bitfit", "union")},
    **{("hiwi", f): "target is biases" for f in ("llama", "modernbert", "qwen2", "qwen3")},
}  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    families = sorted(FAMILIES)
    pairs = [(name, family) for family in families for name in NAMES]
    if not metafunc.config.getoption("--full-matrix"):
        # Neighbours in the list of names, so that together they are all methods.
        chosen = [NAMES[i % len(NAMES)] for i in range(2 * len(families))]
        pairs = [(name, families[i // 2]) for i, name in enumerate(chosen)]
    metafunc.parametrize(("name", "family"), pairs)


def attached(folder: Path, method: methods.Method) -> Classifier:
    model = build_classifier(folder, 3, "mean", 0)
    methods.attach(model, method, seed=1)
    return model


def test_a_method_works_on_an_architecture_or_is_refused(
    name: str, family: str, tmp_path: Path
) -> None:
    folder = write_family(tmp_path / "model", family)
    config = check_base(folder)
    method = methods.resolve(name, SMALLER.get(name, {}), "test")
    prefixes = FAMILIES[family].prefixes
    card = {"architecture": family, "hidden_size": 32, "layers": 2, "heads": 4, "ffn_size": 64}
    card |= {"max_positions": 64, "prefixes": prefixes}
    if (name, family) in REFUSED:
        with pytest.raises(TuneTrailError, match=REFUSED[name, family]):  # noqa: PT012
            method.check(card, 32)
            trained_parameters(method, config, "mean")
        return
    method.check(card, 32)

    model, other = attached(folder, method), attached(folder, method)
    move(model)
    model.eval()(**ROWS.batch(np.arange(len(ROWS)))).square().sum().backward()
    assert [k for k, p in model.trained().items() if p.grad is None] == []
    before = logits_of(model, ROWS)
    assert before.isfinite().all()
    method.fold(model)
    method.fold(other)
    (tmp_path / "adapter").mkdir()
    save_adapter(model, tmp_path / "adapter", **OWNER)
    load_adapter(other, tmp_path / "adapter", **OWNER)
    torch.testing.assert_close(logits_of(other, ROWS), before, rtol=0, atol=2e-5)
    own = sum(p.numel() for k, p in model.trained().items() if not k.startswith("head."))
    assert trained_parameters(method, config, "mean") == own

    if method.merge_obstacle() is None:
        method.merge(model)
        torch.testing.assert_close(logits_of(model, ROWS), before, rtol=0, atol=2e-5)
    export.write_onnx(model, tmp_path / "model.onnx")
    session = export.open_session(tmp_path / "model.onnx", threads=1)
    for index in ([0], [4, 2], list(range(len(ROWS)))):
        found = export.ask(session, ROWS.batch(np.array(index)))
        np.testing.assert_allclose(found, before[index].numpy(), rtol=0, atol=1e-4)
