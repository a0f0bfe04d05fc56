"""The adapter contract: the base class of every adapter, and of the settings that become the keys of `adapter.*`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import lightning
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from evalkit.api import Batch, Example, FeatureSpec, Prediction, Score
from evalkit.canary.finding import Finding
from evalkit.errors import UserError
from evalkit.runtime.ranks import ALONE, Ranks


@dataclass(frozen=True)
class AdapterSettings:
    """Settings of an adapter: the fields of a subclass named `Settings` are the keys of `adapter.*`.

    Each field needs a type and a default (without one, the key must be given), and a line under `Attributes:` in the
    docstring, which `evalkit run task=NAME --help` shows; keys are listed and recorded in the order of these lines.

    Attributes of the class:
        STACKABLE: settings in which grid points of one training pass may differ; empty: every point is a pass.
        COMPATIBLE_ADAPTERS: names of other adapters whose trained weights can be loaded, each with those of its
            settings that the weights depend on.
        INFERENCE_SETTINGS: settings that do not affect training; a trained adapter takes the task's value for them.
        TRAINED_WITH: settings that the weights depend on although their shapes do not show it; a trained adapter
            refuses other values.
        TEXT_ONLY: whether it also works without an encoder (ckpt=none), whose `dim` is then 0.
    """

    STACKABLE: ClassVar[tuple[str, ...]] = ()
    COMPATIBLE_ADAPTERS: ClassVar[Mapping[str, Sequence[str]]] = {}
    INFERENCE_SETTINGS: ClassVar[tuple[str, ...]] = ()
    TRAINED_WITH: ClassVar[tuple[str, ...]] = ()
    TEXT_ONLY: ClassVar[bool] = False


@dataclass(frozen=True)
class Training(AdapterSettings):
    """Settings of an adapter that is trained in epochs.

    Attributes:
        lr: peak learning rate.
        weight_decay: of the matrices.
        epochs: passes over the training examples.
        batch_size: examples in one training step.
    """

    lr: Annotated[float, Gt(0)] = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 0.05
    epochs: Annotated[int, Ge(0)] = 30
    batch_size: Annotated[int, Gt(0)] = 32


def check_predictions(adapter: Adapter, predictions: object, count: int) -> Sequence[Prediction]:
    """Checks that predictions are a list of this many `Prediction`.

    Raises:
        UserError: they are something else.
    """
    if isinstance(predictions, Sequence) and len(predictions) == count:
        wrong = next((value for value in predictions if not isinstance(value, Prediction)), None)
        if wrong is None:
            return predictions
        shown = f"a {type(wrong).__name__} among its predictions"
    else:
        length = f" of {len(predictions)}" if isinstance(predictions, Sequence) else ""
        shown = f"a {type(predictions).__name__}{length}"
    raise UserError(
        f"adapter {type(adapter).__name__}: predict gave {shown}; wanted a list of {count} evalkit.api.Prediction, one "
        "per example (docs/adapters.md)"
    )


class Adapter(lightning.LightningModule, ABC):
    """Joins a frozen encoder to a task: reads features of videos and predicts what the task scores.

    A subclass defines `predict`. One that is trained also defines `training_step` and `configure_optimizers` and sets
    `epochs`; one with a closed-form solution sets `closed_form` and defines `solve`.

    Attributes:
        needs_video: `predict` is never called without features; False if it supports the blind control (features=None).
        single_view: reads one view of a video; several clips or crops are refused.
        closed_form: fitted by one call of `solve`, without a trainer. `epochs` is 1 then.
        divisible: several processes may each train on a part of a batch, because the loss is a mean over examples or is
            computed over the whole batch (`contrastive_loss`).
        score: replaces the task's score, for an adapter that measures features and predicts no targets; examples
            without a public target count, and there are no controls.
        trains_encoder: the encoder is part of the module and is trained; `training_step` gets uint8 video
            (B, V, T, C, H, W) instead of features.
        scores_val: the best epoch is chosen by `val_score` instead of the task's score.
        transductive: its prediction for an example depends on the other test examples; the record and the leaderboard
            then say so.
        feature_spec: which part of the encoder's output it reads.
        epochs: passes over the training examples; 0 for an adapter that is not trained.
        batch_size: examples in one training step.
        ranks: the rank of this process among those that share each batch.
        points: K, the number of grid points trained together. Where K > 1, each trainable parameter has K as its first
            dimension, `training_step` returns {"loss": their sum, "losses": (K,)}, and `predict_all` and `select` are
            defined.
    """

    needs_video: ClassVar[bool] = True
    single_view: ClassVar[bool] = False
    closed_form: ClassVar[bool] = False
    divisible: bool = False
    trains_encoder: bool = False
    scores_val: bool = False
    transductive: bool = False
    score: Score | None = None
    feature_spec: FeatureSpec = FeatureSpec()
    epochs: int = 0
    batch_size: int = 1
    ranks: Ranks = ALONE
    points: int = 1

    @property
    def frozen(self) -> Mapping[str, str]:
        """Names and SHA-256 of frozen parts that the trained weights belong to but do not contain."""
        return {}

    def describe_language_model(self, example: Example) -> dict[str, Any] | None:
        """The record's description of the language model, with the prompt of an example; None without one.

        Its keys are those of `adapter.language_model` in result.schema.json.
        """
        return None

    @property
    def findings(self) -> Sequence[Finding]:
        """Findings of checks on a frozen part, such as a language model, for the record."""
        return ()

    @property
    def saves_encoder(self) -> bool:
        """Whether a trained encoder is saved as a separate checkpoint; False if `adapter_state` contains it."""
        return self.trains_encoder

    @abstractmethod
    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """One prediction per example.

        Args:
            examples: B examples, whose targets must not be used.
            features: (B, V, ...), V views of each, as in `feature_spec`; None for the blind control.
        """

    def training_step(self, batch: Batch, index: int) -> Any:
        """The loss of a batch: a scalar, or for K > 1 points {"loss": their sum, "losses": (K,)}."""
        raise UserError(f"adapter {type(self).__name__} has epochs={self.epochs} and no training_step()")

    def val_score(self, batch: Batch) -> float:
        """The score on a val batch, higher is better; batches are weighted by their number of examples."""
        raise UserError(f"adapter {type(self).__name__} has scores_val=True and no val_score()")

    def loss_origin(self, batch: Batch) -> str:
        """The cause of a NaN or infinite loss, before its gradients are applied; empty if unknown."""
        broken = [example.id for example, row in zip(batch.examples, batch.features, strict=True) if _is_broken(row)]
        if broken:
            return f"the features of example {broken[0]} hold NaN or infinity"
        names = [name for name, value in self.named_parameters() if value.requires_grad and _is_broken(value)]
        return f"the trained weights {names[0]} hold NaN or infinity, try a lower adapter.lr" if names else ""

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule if any, as in any LightningModule."""
        raise UserError(f"adapter {type(self).__name__} has epochs={self.epochs} and no configure_optimizers()")

    def predict_all(self, examples: Sequence[Example], features: Tensor | None) -> list[list[Prediction]]:
        """The predictions of each of the K points."""
        return [self.predict(examples, features)]

    def select(self, point: int) -> None:
        """Keeps one point of several, counted from 0."""
        if self.points > 1:
            raise UserError(f"adapter {type(self).__name__} trains {self.points} points and has no select()")

    def solve(self, train: Batch) -> None:
        """Fits every point at once.

        Args:
            train: all training examples, with features (n, V, ...) of all their views.
        """
        raise UserError(f"adapter {type(self).__name__} has closed_form=True and no solve()")

    def check_examples(self, count: int) -> None:
        """Raises UserError if this many training examples are too few; called before any of them is read."""
        return None

    def finalize(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Sequence[Prediction]:
        """The final predictions for a whole split, if they depend on the other examples, as ranks do."""
        return predictions

    def finalize_steps(self, examples: Sequence[Example]) -> int:
        """Steps of equal length that `finalize` takes, from which `evalkit plan` estimates its time."""
        return len(examples)

    def attention(self, examples: Sequence[Example], features: Tensor) -> Tensor | None:
        """Attention weights (B, V, layers, T', S) over the tokens, for visualization.

        The weights of a layer sum to 1 over the tokens read together: a view, or all clips. None without attention.
        """
        return None

    def adapter_state(self) -> dict[str, Tensor]:
        """The tensors to save: trainable parameters, except the encoder's, which is saved as a checkpoint."""
        trainable = {name: value for name, value in self.named_parameters() if value.requires_grad}
        return {name: value for name, value in trainable.items() if not name.startswith("encoder.")}

    @torch.no_grad()
    def load_adapter_state(self, weights: Mapping[str, Tensor]) -> None:
        """Loads tensors with the names and shapes of `adapter_state`, of any float dtype."""
        for name, value in self.adapter_state().items():
            value.copy_(weights[name])

    def flops(self, encoder: Any, video: Tensor) -> int | None:
        """FLOPs of one clip in the trained layers, two per multiply-add; None if not counted.

        Args:
            encoder: called as the encoder, on the device `meta`: its output has shapes and no values.
            video: (1, T, C, H, W) on `meta`.
        """
        return None


def _is_broken(values: Tensor) -> bool:
    return values.is_floating_point() and not bool(values.isfinite().all())
