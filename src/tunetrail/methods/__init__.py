"""Fine-tuning methods, one module each; a module's name is the method's name.

A method is a frozen group of options that knows how to attach itself to the sites of a model. It
knows nothing of architectures, training or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field

from tunetrail import discovery
from tunetrail.errors import unknown
from tunetrail.modeling.classifier import Classifier
from tunetrail.settings import Settings, parse


class Method(Settings):
    """Base class of every method.

    The trunk is frozen and the head trains before :meth:`attach` is called, and random numbers
    are seeded for this method alone, so attaching decides nothing else.
    """

    title: ClassVar[str]
    paper: ClassVar[str] = Field(description="where the method is defined")
    #: Whose code the method computes the same as, by our tests; None: nobody's is known to.
    verified: ClassVar[str | None] = None
    #: Why the trained model cannot be written as the base model's own weights, or None if it can.
    not_mergeable: ClassVar[str | None] = None
    #: Why processes cannot hold a part of the weights each (``sharding: fsdp``), or None.
    not_shardable: ClassVar[str | None] = None
    #: Whether the model computes the same as the base model before any training step.
    starts_at_base: ClassVar[bool] = True

    learning_rate: float = Field(gt=0, description="peak learning rate")

    def attach(self, model: Classifier) -> None:
        """Add modules to ``model`` or unfreeze parameters of it."""
        raise NotImplementedError

    def fold(self, model: Classifier) -> None:
        """Replace what serves training alone (a reparametrisation) by what is kept and saved."""

    def merge(self, model: Classifier) -> None:
        """Fold what was added into the base model's weights (in float32)."""

    def merge_obstacle(self) -> str | None:
        """Why these options cannot be merged; None if they can."""
        return self.not_mergeable

    def shard_obstacle(self) -> str | None:
        """Why these options cannot be sharded; None if they can."""
        return self.not_shardable

    def claims(self) -> dict[str, str]:
        """Place → what is put there that no other method can share; a union must not repeat one.

        A place is a site, or ``prompt``, ``biases`` or ``weights`` (all of the trunk's), or
        ``peft`` (a tuner of that library).
        """
        return {}

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """Refuse options that cannot fit a base model.

        Args:
            base: The base model's card: ``architecture``, ``hidden_size``, ``layers``, ``heads``,
                ``ffn_size``, ``max_positions``.
            max_length: Tokens that texts are cut to.

        Raises:
            TuneTrailError: With the option, its value and the rule.
        """

    def before_step(self, model: Classifier, share: float) -> None:
        """Called before every optimiser step with the share of training that is done (0 … 1)."""

    def penalty(self, model: Classifier) -> torch.Tensor | None:
        """A scalar to add to the loss of the batch that was just computed, or None."""
        return None

    def observe(self, model: Classifier) -> dict[str, float]:
        """Values to record with the selection scores, such as the mean of each gate.

        Those of a layer are named by its number and, after a blank, what they are of.
        """
        return {}


def names() -> list[str]:
    """Every method there is."""
    return sorted(discovery.modules(__name__))


def method_class(name: str, where: str = "") -> type[Method]:
    """The class of method ``name``.

    Raises:
        TuneTrailError: No such method.
    """
    if name not in discovery.modules(__name__):
        raise unknown("method", name, names(), where)
    found: type[Method] = discovery.load(__name__, name, Method)
    return found


def resolve(name: str, options: dict[str, Any], where: str) -> Method:
    """Method ``name`` with ``options``, defaults filled in.

    Raises:
        TuneTrailError: Unknown method or option, or a value out of range.
    """
    return parse(method_class(name, where), options, where)


def attach(model: Classifier, method: Method, seed: int) -> None:
    """Freeze the trunk, let the head train, and attach ``method`` with its own random numbers."""
    model.trunk.requires_grad_(False)
    model.head.requires_grad_(True)
    torch.manual_seed(seed)
    method.attach(model)
