"""A trunk with a masked-language-model head: its own, or a new one tied to the embeddings."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tunetrail.files import scratch
from tunetrail.modeling import attention
from tunetrail.modeling.sites import check_masked, family_of


class MaskedLM(nn.Module):
    """Logits of the tokens to predict, and of no other: the vocabulary is the larger half of the
    work, and most tokens are not predicted.

    Args:
        model: transformers' masked-language model of the family.

    Attributes:
        new_head: Whether the head's weights are random: no file had them.
    """

    def __init__(self, model: Any, new_head: bool) -> None:
        super().__init__()
        self.model = model
        self.new_head = new_head
        self._chosen: torch.Tensor
        # The family's own forward goes from the trunk's output to logits; it is given less of it.
        model.base_model.register_forward_hook(self._choose)
        config = model.config
        self._segments = getattr(config, "type_vocab_size", 0) > 0

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
        chosen: torch.Tensor,
    ) -> torch.Tensor:
        """Logits ``(tokens chosen, vocabulary)``; all arguments are ``(batch, length)``."""
        self._chosen = chosen
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._segments:
            inputs["token_type_ids"] = token_type_ids
        logits: torch.Tensor = self.model(**inputs).logits
        return logits[0]

    def _choose(self, _: nn.Module, __: Any, output: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=output[0][self._chosen].unsqueeze(0))

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Name → parameter of the head alone; a tied matrix belongs to the trunk."""
        trunk = {id(p) for p in self.model.base_model.parameters()}
        return {name: p for name, p in self.named_parameters() if id(p) not in trunk}


def load_masked_lm(base: Path, seed: int) -> MaskedLM:
    """Trunk and masked-LM head of a model folder (safetensors only).

    Where the files lack a head, or a part of it, it starts from ``seed`` as its family has it (a
    dense layer, activation and LayerNorm before the decoder), with the embeddings as the decoder's
    weights. The pooler stays as it is: masked-language modelling does not use it.

    Raises:
        TuneTrailError: The architecture is a decoder.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    check_masked(config.model_type)
    options = {
        "local_files_only": True,
        "use_safetensors": True,
        "dtype": torch.float32,
        "attn_implementation": attention.register()
        if family_of(config.model_type).prefixes
        else "eager",
        "output_loading_info": True,
    }
    torch.manual_seed(seed)
    model, loading = AutoModelForMaskedLM.from_pretrained(base, **options)
    new = _lacks_head(model, loading["missing_keys"])
    if new and not model.config.tie_word_embeddings:
        config.tie_word_embeddings = True
        torch.manual_seed(seed)
        model, _ = AutoModelForMaskedLM.from_pretrained(base, config=config, **options)
    trunk, loading = AutoModel.from_pretrained(base, **options)
    if any("pooler" in name for name in loading["missing_keys"]):
        trunk.pooler = None
    setattr(model, model.base_model_prefix, trunk)
    model.tie_weights()
    return MaskedLM(model, new)


def _lacks_head(model: Any, missing: set[str]) -> bool:
    """Whether weights of the head are among the missing ones (a tied one is never stored)."""
    tied = set(model.all_tied_weights_keys)
    trunk = f"{model.base_model_prefix}."
    return any(not name.startswith(trunk) for name in set(missing) - tied)


def save_masked_lm(model: MaskedLM, base: Path, folder: Path) -> None:
    """Write a model folder like ``base``, head included, with tokenizer and all that is beside it.

    Whatever loads ``base`` as a trunk loads this; a head that is there is used by the next
    pretraining.
    """
    folder.mkdir()
    with scratch() as written:
        model.model.save_pretrained(written)
        own = {path.name for path in written.iterdir()}
        for path in sorted([*base.iterdir(), *written.iterdir()]):
            weights = path.suffix == ".safetensors" or path.name.endswith(".index.json")
            if path.parent == written or not (path.name in own or weights):
                shutil.copyfile(path, folder / path.name)
