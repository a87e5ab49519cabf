"""pretrain: masked-language modelling on prepared text, to a checkpoint that methods start from.

It reads tokens and nothing else: no label, and neither the selection nor the test set of a task.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tunetrail.code import code_digest
from tunetrail.files import file_digest, replacing, scratch, tree_digest, write_json
from tunetrail.layout import CARD, PRETRAIN
from tunetrail.machine import require_room
from tunetrail.modeling.base import read_base
from tunetrail.modeling.masked_lm import MaskedLM, load_masked_lm, save_masked_lm
from tunetrail.pretraining import Objective, PretrainSpec
from tunetrail.run import Numerics
from tunetrail.training import numerics
from tunetrail.training.checkpoint import forget
from tunetrail.training.masking import pretrain_masked, read_text, read_vocabulary, set_aside
from tunetrail.training.numerics import derived_seed
from tunetrail.training.processes import check_devices, together, whole
from tunetrail.training.schedule import Progress, silent


def pretrain(
    objective: Objective,
    precision: Numerics,
    text: Path,
    base: Path,
    out: Path,
    progress: Progress = silent,
) -> None:
    """Continue the pretraining of a base model and write it, as the base stage does, to ``out``.

    ``out/pretrain.json`` has the spec and its digest, the held-out loss before (with a trained head
    on the untouched trunk) and after, the curves, and the tokens seen. Killed and started again,
    it continues from its last checkpoint to the same weights.

    Args:
        objective: What to do.
        precision: Precision, threads and processes.
        text: Parquet file of tokens.
        base: What the base stage, or this one, wrote.
        out: Folder to write.
        progress: See :data:`tunetrail.training.schedule.Progress`.

    Raises:
        TuneTrailError: The base model has no such objective, or there is too little text.
        TrainingDiverged: The loss is no longer finite.
    """
    weights, card = read_base(base)
    objective = Objective.model_validate(objective.model_dump(include=set(Objective.model_fields)))
    spec = PretrainSpec(
        base=card["digest"],
        text=file_digest(text),
        objective=objective,
        numerics=precision,
        code=code_digest(__name__),
    )
    check_devices(spec.numerics)
    numerics.apply(spec.numerics)
    model = load_masked_lm(weights, derived_seed(objective.seed, "masked-LM head"))
    vocabulary = read_vocabulary(weights)
    train, held_out = set_aside(read_text(text), objective.held_out, objective.seed)
    # The result, and a checkpoint with two moments of the optimiser while the next is written.
    require_room(out, 7 * sum(p.nbytes for p in model.parameters()), "this pretraining")
    if spec.numerics.processes > 1:
        history = _pretrained_together(model, spec, text, weights, progress)
    else:
        history = pretrain_masked(model, spec, vocabulary, train, held_out, progress)
    with replacing(out) as folder:
        save_masked_lm(model, weights, folder / "model")
        digest = tree_digest(folder / "model")
        write_json(folder / CARD, {**card, "digest": digest})
        (_, before), *_, (_, after) = history["held_out"]
        content = {
            "pretraining": spec.digest,
            "spec": spec.model_dump(mode="json"),
            "head": "new" if model.new_head else "own",
            "texts": {"train": len(train), "held_out": len(held_out)},
            "held_out_loss": {"before": before, "after": after},
            **history,
        }
        write_json(folder / PRETRAIN, content)
    forget(spec.digest)


def _pretrained_together(
    model: MaskedLM, spec: PretrainSpec, text: Path, weights: Path, progress: Progress
) -> dict[str, Any]:
    """Pretrain ``model`` as ``pretrain_masked`` does, in processes that each load their own."""
    with scratch() as folder:
        arguments = {"spec": spec, "text": text, "weights": weights, "out": folder / "trained"}
        heard = {"progress": progress}
        history: dict[str, Any] = together(spec.numerics, _pretrain_with_others, arguments, heard)
        trained = load_file(folder / "trained")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in trained.items():
            parameters[name].copy_(tensor)
    return history


def _pretrain_with_others(
    spec: PretrainSpec, text: Path, weights: Path, out: Path, progress: Progress
) -> dict[str, Any]:
    """In one of several processes: pretrain; the first one writes what was trained to ``out``."""
    objective = spec.objective
    numerics.apply(spec.numerics)
    model = load_masked_lm(weights, derived_seed(objective.seed, "masked-LM head"))
    train, held_out = set_aside(read_text(text), objective.held_out, objective.seed)
    history = pretrain_masked(model, spec, read_vocabulary(weights), train, held_out, progress)
    if torch.distributed.get_rank() == 0:
        trained = {n: whole(p).contiguous() for n, p in model.named_parameters() if p.requires_grad}
        save_file(trained, out)
    return history
