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
        COMPATIBLE_ADAPTERS: names of other adapters whose trained weights this one loads, each with the settings of
            theirs that its weights depend on.
        INFERENCE_SETTINGS: settings that have no part in training, so that of a trained adapter the task's value holds.
        TRAINED_WITH: settings that the weights were trained with though their shapes do not show it: of a trained
            adapter, another value is refused.
        TEXT_ONLY: whether it also answers without an encoder (ckpt=none), which then has `dim` 0.
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
    """The predictions, which are a list of so many `Prediction`.

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
        needs_video: `predict` is never called without features; False where it has a blind control (features=None).
        single_view: reads one view of a video; a run with several clips or crops is refused.
        closed_form: fitted by one call of `solve`, without a trainer. `epochs` is 1 then.
        divisible: several processes may each take a part of a batch: the loss is a mean over its examples, or is that
            of the whole (`contrastive_loss`).
        score: takes the place of the task's, for an adapter that measures features and predicts no target; targets that
            are not public count, and controls are left out.
        trains_encoder: the encoder is part of the module and changes while it is fitted: `training_step` gets uint8
            video (B, V, T, C, H, W) in place of features.
        scores_val: the epoch is chosen by `val_score`, in place of the task's score of what `predict` gives.
        transductive: what it predicts of an example depends on the other examples of the test, as the record and the
            board then say.
        feature_spec: which part of the encoder's output it reads.
        epochs: passes over the training examples; 0 for an adapter that is not fitted.
        batch_size: examples in one training step.
        ranks: this process's place among those that take a part of each batch.
        points: K, grid points that it trains together. Where K > 1, each trainable parameter has K as its first
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
        """SHA-256 by name of frozen parts that the trained weights belong to and do not contain."""
        return {}

    def describe_language_model(self, example: Example) -> dict[str, Any] | None:
        """What the record holds of the language model that is asked, with the prompt of an example; None without one.

        Its keys are those of `adapter.language_model` in result.schema.json.
        """
        return None

    @property
    def findings(self) -> Sequence[Finding]:
        """What was measured of a frozen part, such as a language model, before it was used; for the record."""
        return ()

    @property
    def saves_encoder(self) -> bool:
        """Whether a trained encoder is written as a checkpoint of its own; False where `adapter_state` contains it."""
        return self.trains_encoder

    @abstractmethod
    def predict(self, examples: Sequence[Example], features: Tensor | None) -> list[Prediction]:
        """One prediction per example.

        Args:
            examples: B of them, without looking at their targets.
            features: (B, V, ...), V views of each, as `feature_spec` says; None for the blind control.
        """

    def training_step(self, batch: Batch, index: int) -> Any:
        """The loss of a batch: a scalar; of K > 1 points, {"loss": their sum, "losses": (K,)}."""
        raise UserError(f"adapter {type(self).__name__} has epochs={self.epochs} and no training_step()")

    def val_score(self, batch: Batch) -> float:
        """How good it is on a batch of val, of which more is better; batches weigh as many examples as they have."""
        raise UserError(f"adapter {type(self).__name__} has scores_val=True and no val_score()")

    def loss_origin(self, batch: Batch) -> str:
        """Where a loss that is NaN or infinite comes from, before its gradients are applied; empty if unknown."""
        broken = [example.id for example, row in zip(batch.examples, batch.features, strict=True) if _is_broken(row)]
        if broken:
            return f"the features of example {broken[0]} hold NaN or infinity"
        names = [name for name, value in self.named_parameters() if value.requires_grad and _is_broken(value)]
        return f"the trained weights {names[0]} hold NaN or infinity, try a lower adapter.lr" if names else ""

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule if any, as of any LightningModule."""
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
        """Raises UserError where so many training examples are too few; called before any of them is read."""
        return None

    def finalize(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Sequence[Prediction]:
        """The final predictions for a whole split, where one depends on the other examples, as a rank does."""
        return predictions

    def attention(self, examples: Sequence[Example], features: Tensor) -> Tensor | None:
        """Where it looks, for people: weights (B, V, layers, T', S) of tokens as `predict` takes them.

        Each layer's sum to 1 over what is read together, a view or all clips. None where it has no attention to show.
        """
        return None

    def adapter_state(self) -> dict[str, Tensor]:
        """The tensors to write: trainable parameters, without those of an encoder, which is a checkpoint of its own."""
        trainable = {name: value for name, value in self.named_parameters() if value.requires_grad}
        return {name: value for name, value in trainable.items() if not name.startswith("encoder.")}

    @torch.no_grad()
    def load_adapter_state(self, weights: Mapping[str, Tensor]) -> None:
        """Copies tensors with the names and shapes of `adapter_state` back, from any float dtype."""
        for name, value in self.adapter_state().items():
            value.copy_(weights[name])

    def flops(self, encoder: Any, video: Tensor) -> int | None:
        """Operations of one clip in the layers that are trained, two per multiply-add; None where not counted.

        Args:
            encoder: called as the encoder, on the device `meta`: its output has shapes and no values.
            video: (1, T, C, H, W) on `meta`.
        """
        return None


def _is_broken(values: Tensor) -> bool:
    return values.is_floating_point() and not bool(values.isfinite().all())
