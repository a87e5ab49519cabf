"""Adapters of the peft library in a trunk. Needs the optional dependency ``peft``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tunetrail.errors import TuneTrailError, unknown

_NAME = "default"
#: Settings of peft's files, not of its layers, and what would let nothing train.
_NOT_OPTIONS = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version",
    "revision", "runtime_config", "task_type",
}  # fmt: skip
#: Kinds that one run cannot train, and why.
_UNUSABLE = {
    "POLY": "it needs the task of every row",
    "SHADOW": "it runs a second model beside the base model",
    "TRAINABLE_TOKENS": "the vocabulary gets no new tokens here",
    "XLORA": "it mixes adapters that are trained already",
}
#: Kinds that peft itself cannot merge, and why.
_UNMERGEABLE = {"LILY": "peft cannot merge layers that share their factors"}
#: Stands for the length of the run until that is known.
_ANY_STEPS = 10**9


def kind_of(options: Mapping[str, Any]) -> str:
    """The ``peft_type`` of ``options``; DORA is LORA with ``use_dora``."""
    return str(options.get("peft_type", "")).upper()


def obstacle(options: Mapping[str, Any]) -> str | None:
    """Why adapters with these options cannot be merged; None if they can."""
    return _UNMERGEABLE.get(kind_of(options))


def config_of(
    options: Mapping[str, Any], targets: Sequence[str] = ("any",), inputs: Sequence[str] = ()
) -> Any:
    """peft's configuration.

    Args:
        options: ``peft_type`` and settings of that kind, as peft names them.
        targets: Modules to adapt, unless the options name others.
        inputs: Those of them whose inputs are scaled, where a kind tells the two apart.

    Raises:
        TuneTrailError: peft is missing, or knows no such kind or setting, or refuses a value, or
            the kind is one that a run cannot train.
    """
    try:
        from peft import mapping
        from peft.tuners.tuners_utils import BaseTuner
    except ImportError:
        raise TuneTrailError(
            "peft_adapter: the library 'peft' is not installed", "pip install 'tunetrail[methods]'"
        ) from None
    kind, settings = kind_of(options), {k: v for k, v in options.items() if k != "peft_type"}
    if kind == "DORA":
        kind, settings = "LORA", {"use_dora": True} | settings
    known = {known.value: known for known in mapping.PEFT_TYPE_TO_CONFIG_MAPPING}
    if kind not in known:
        raise unknown("peft_type", kind, [*known, "DORA"], "peft_adapter: config")
    if not issubclass(mapping.PEFT_TYPE_TO_TUNER_MAPPING[known[kind]], BaseTuner):
        raise TuneTrailError(
            f"peft_adapter: config: {kind} adds tokens and cannot be put into layers",
            "use prompt_tuning, deep_prompt, fourier_prompt or prefix_tuning instead",
        )
    if kind in _UNUSABLE:
        raise TuneTrailError(
            f"peft_adapter: config: {kind} cannot be trained here: {_UNUSABLE[kind]}",
            "use another peft_type",
        )
    make = mapping.PEFT_TYPE_TO_CONFIG_MAPPING[known[kind]]
    fields = {field.name for field in dataclasses.fields(make) if field.init} - _NOT_OPTIONS
    for key in settings:
        if key not in fields:
            raise unknown("key", key, fields, f"peft_adapter: config of {kind}")
    filled = {
        "target_modules": list(targets),
        "feedforward_modules": list(inputs),
        "total_step": _ANY_STEPS,
    }
    settings = {k: v for k, v in filled.items() if k in fields} | settings
    config = _asked(kind, lambda: make(**settings))
    if getattr(config, "target_r", 0) >= getattr(config, "init_r", 1):
        raise TuneTrailError(
            f"peft_adapter: config: target_r is {config.target_r} and must be below init_r, which "
            f"is {config.init_r}",
            "lower target_r",
        )
    return config


def short_names(trunk: nn.Module, paths: Sequence[str]) -> list[str]:
    """What to call the modules ``paths``: one common ending, if they alone have it.

    Kinds that share parameters across layers share them between modules of one name.
    """
    endings = [path.split(".") for path in paths]
    names = [name for name, _ in trunk.named_modules()]
    for length in range(1, min(map(len, endings), default=0)):
        common = {".".join(ending[-length:]) for ending in endings}
        found = [name for name in names if name.endswith(tuple(f".{c}" for c in common))]
        if len(common) == 1 and sorted(found) == sorted(paths):
            return list(common)
    return list(paths)


def _asked(kind: str, call: Callable[[], Any]) -> Any:
    """What ``call`` returns; what peft objects to becomes an error for the user."""
    try:
        return call()
    except (ValueError, TypeError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise TuneTrailError(
            f"peft_adapter: config: peft refuses this {kind}: {reason}", "change that setting"
        ) from error


def _tuner(config: Any, model: nn.Module) -> Any:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    kind = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    return _asked(config.peft_type.value, lambda: kind(model, config, _NAME))


def check_sizes(config: Any, sites: Sequence[str], base: Mapping[str, Any]) -> None:
    """Put adapters into layers of the base model's sizes, one for each of ``sites``.

    Raises:
        TuneTrailError: A setting does not fit them.
    """
    hidden, ffn = base["hidden_size"], base["ffn_size"]
    sizes = {"ffn_in": (hidden, ffn), "ffn_out": (ffn, hidden)}
    layers = {
        site: nn.LayerNorm(hidden)
        if site.endswith("norm")
        else nn.Linear(*sizes.get(site, (hidden, hidden)))
        for site in sites
    }
    _tuner(config, nn.ModuleDict(layers))


class PeftTuner(nn.Module):
    """One of peft's tuners, with its layers in ``trunk``; this module itself has no parameters.

    Kinds that move rank between layers during training do so after a step, from its gradients.
    These are kept until the next step, or the next prediction, begins.
    """

    def __init__(self, config: Any, trunk: nn.Module) -> None:
        super().__init__()
        training = [parameter for parameter in trunk.parameters() if parameter.requires_grad]
        tuner = _tuner(config, trunk)
        for parameter in training:  # peft freezes what it did not make
            parameter.requires_grad_(True)
        self._held = (tuner, config)  # not a submodule: its parameters are the trunk's
        self._count_steps = getattr(config, "total_step", None) == _ANY_STEPS
        self._gradients: dict[torch.Tensor, torch.Tensor | None] = {}
        self._done: int | None = None
        self._share: float | None = None
        self._total: int | None = None
        self._final = False
        if hasattr(tuner, "update_and_allocate"):
            for parameter in trunk.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self._keep)  # type: ignore[no-untyped-call]
            trunk.register_forward_pre_hook(self._before_forward)

    def merge(self) -> None:
        """Fold all layers into the trunk's own."""
        tuner, config = self._held
        _asked(config.peft_type.value, tuner.merge_and_unload)

    def penalty(self) -> torch.Tensor | None:
        """How far AdaLoRA's factors are from orthogonal, weighted; None for other kinds."""
        tuner, config = self._held
        weight = getattr(config, "orth_reg_weight", 0.0)
        if not weight:
            return None
        named = dict(tuner.model.named_parameters())
        factors = [p for name, p in named.items() if f"lora_A.{_NAME}" in name]
        factors += [p.T for name, p in named.items() if f"lora_B.{_NAME}" in name]
        distances = [torch.norm(p @ p.T - torch.eye(len(p), device=p.device)) for p in factors]
        penalty: torch.Tensor = weight * torch.stack(distances).mean()
        return penalty

    def before_step(self, share: float) -> None:
        """Catch up with the step before, of which ``share`` of the run tells the number."""
        if share == 0.0:
            self._done = 0
        elif self._done is not None:
            self._done += 1
            self._total = round(self._done / share)
        elif self._share is not None:  # a run that was resumed: two shares tell its length
            self._total = round(1 / (share - self._share))
            self._done = round(share * self._total)
        self._share = share
        if self._done is not None:
            self._allocate(self._done)

    def _keep(self, parameter: torch.Tensor) -> None:
        # Clipping changes gradients in place, so this will be the clipped one.
        self._gradients[parameter] = parameter.grad

    def _before_forward(self, trunk: nn.Module, _: Any) -> None:
        if not trunk.training and self._done is not None:
            self._allocate(self._done + 1)

    def _allocate(self, step: int) -> None:
        tuner, config = self._held
        if not self._gradients or self._total is None:
            return
        if self._count_steps:
            config.total_step = self._total
        gradients, self._gradients = self._gradients, {}
        allocator = getattr(tuner, "rankallocator", None)
        if allocator is not None:
            last = config.total_step - config.tfinal
            if step >= last and last <= config.tinit:
                raise TuneTrailError(
                    f"peft_adapter: config: tinit is {config.tinit} and tfinal {config.tfinal}, "
                    f"and the run has {config.total_step} steps: none is left to take rank in",
                    "lower them, or raise the budget",
                )
            if step >= last and not (allocator.ipt or self._final):
                return  # a run resumed so late does not know any more what to take
            # Under a time limit the length is an estimate, and its last step may be jumped over.
            step = max(step, last + 1) if self._final else min(step, last)
            self._final = step >= last
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        with torch.inference_mode(False), torch.no_grad():
            tuner.update_and_allocate(step)
        for parameter in gradients:
            parameter.grad = None


def tuner_of(model: nn.Module) -> PeftTuner:
    """The tuner that is called ``peft`` in ``model``."""
    found: Any = model.get_submodule("peft")
    tuner: PeftTuner = found
    return tuner
