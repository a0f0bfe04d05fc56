"""Multiple choice through a frozen language model that reads a frozen encoder's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import evalkit
from evalkit import checkpoint
from evalkit.api import Batch, Encoder, Example, Kept, Prediction, Task, UserError
from evalkit.optim import adamw

DEMO_LM = Path(evalkit.__file__).parent / "demo" / "lm"

Temporal = Literal["none", "strided", "mean"]
Scorer = Literal["likelihood", "likelihood_per_token"]


class Resampler(nn.Module):
    """Perceiver resampler: a fixed number of learned latents attend to all tokens and to each other.

    Tokens (B, T', S, D) with the time of each step added -> (B, latents, out).
    """

    def __init__(self, dim: int, out: int, latents: int, depth: int, heads: int) -> None:
        super().__init__()
        self.read = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, out))
        self.time = nn.Linear(out, out)
        self.latents = nn.Parameter(torch.randn(latents, out) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(out, heads, 4 * out, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(out)

    def forward(self, tokens: Tensor) -> Tensor:
        read = self.read(tokens)  # (B, T', S, out)
        steps, width = read.shape[1], read.shape[-1]
        share = (torch.arange(steps, device=read.device) + 0.5) / steps  # of the clip's length
        waves = share[:, None] * torch.pi * torch.arange(1, width // 2 + 1, device=read.device)
        time = self.time(torch.cat([waves.sin(), waves.cos()], -1))  # (T', out)
        memory = (read + time[:, None]).flatten(1, 2)
        latents = self.latents.expand(len(tokens), -1, -1)
        for layer in self.layers:
            latents = layer(latents, memory)
        return self.norm(latents)  # type: ignore[no-any-return]


class MultipleChoice(lightning.LightningModule):
    """Encoder tokens -> resampler -> visual tokens before the question; each option scored by its log-likelihood."""

    trains_encoder = False

    def __init__(
        self,
        dim: int,
        lm: nn.Module,
        tokenizer: Any,
        temporal: Temporal,
        stride: int,
        latents: int,
        depth: int,
        scorer: Scorer,
        prompt: str,
        lr: float,
        weight_decay: float,
        epochs: int,
        batch_size: int,
    ) -> None:
        super().__init__()
        self.lm, self.tokenizer = lm.eval().requires_grad_(False), tokenizer
        self.scorer, self.prompt = scorer, prompt
        self.kept = Kept("tokens", steps={"none": 1, "strided": stride, "mean": 0}[temporal], dtype="float16")
        self.lr, self.weight_decay, self.epochs, self.batch_size = lr, weight_decay, epochs, batch_size
        width = self.words.embedding_dim
        heads = max(n for n in range(1, 17) if width % n == 0 and width // n >= 16)
        self.resampler = Resampler(dim, width, latents, depth, heads)
        self.scale = nn.Parameter(self.words.weight.std().detach().clone())  # visual tokens start as loud as words

    @property
    def words(self) -> nn.Embedding:
        return self.lm.get_input_embeddings()  # type: ignore[operator,no-any-return]

    @property
    def frozen(self) -> dict[str, str]:
        """Hashes of the frozen parts that the trained weights belong to."""
        return {"lm": checkpoint.sha256(self.lm)}

    def train(self, mode: bool = True) -> MultipleChoice:
        super().train(mode)
        self.lm.eval()
        return self

    def training_step(self, batch: Batch, index: int) -> Tensor:
        right = [example.choices[example.target] for example in batch.examples]
        logprobs, mask = self._option_logprobs(batch.examples, [[text] for text in right], batch.features[:, 0])
        return -(logprobs * mask).sum() / mask.sum()

    def configure_optimizers(self) -> Any:
        return adamw(self, self.lr, self.weight_decay, int(self.trainer.estimated_stepping_batches))

    def predict(self, examples: list[Example], features: Tensor | None) -> list[Prediction]:
        """The option that the language model finds likeliest after video and question; the first of equals."""
        if features is not None and features.shape[1] != 1:
            raise UserError("adapter=multiple_choice reads one view per video: set clip.clips=1 clip.crops=1")
        options = [list(example.choices) for example in examples]
        logprobs, mask = self._option_logprobs(examples, options, None if features is None else features[:, 0])
        sums, counts = (logprobs * mask).sum(-1), mask.sum(-1)
        predictions = []
        for row, count in zip(
            torch.split(sums, [len(own) for own in options]),
            torch.split(counts, [len(own) for own in options]),
            strict=True,
        ):
            value = row / count if self.scorer == "likelihood_per_token" else row
            detail = {"log_likelihood": [round(v, 5) for v in row.tolist()], "tokens": count.int().tolist()}
            predictions.append(Prediction(int(value.argmax()), detail))
        return predictions

    def _option_logprobs(
        self, examples: list[Example] | Any, options: list[list[str]], tokens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Log-probability of each token of each option, and which tokens are the option's: both (all options, L)."""
        rows = [(i, *self._tokens(example, text)) for i, example in enumerate(examples) for text in options[i]]
        ids = [torch.tensor(prompt + option) for _, prompt, option in rows]
        padded = nn.utils.rnn.pad_sequence(ids, batch_first=True).to(self.device)
        attend = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True).to(self.device)
        spoken = [torch.tensor([0.0] * len(prompt) + [1.0] * len(option)) for _, prompt, option in rows]
        mask = nn.utils.rnn.pad_sequence(spoken, batch_first=True).to(self.device)
        embedded = self.words(padded)
        seen = 0
        if tokens is not None:
            visual = self.resampler(tokens.to(self.device, self.scale.dtype)) * self.scale
            visual = visual[torch.tensor([i for i, _, _ in rows], device=self.device)].to(embedded.dtype)
            seen = visual.shape[1]
            embedded = torch.cat([visual, embedded], 1)
            attend = torch.cat([attend.new_ones(len(rows), seen), attend], 1)
        logits = self.lm(inputs_embeds=embedded, attention_mask=attend).logits.float()[:, seen:]
        # Position p predicts token p + 1; the first token has no text before it, but it is never an option's.
        losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), padded[:, 1:], reduction="none")
        return -F.pad(losses, (1, 0)), mask

    def _tokens(self, example: Example, option: str) -> tuple[list[int], list[int]]:
        """Prompt and option as tokens of one running text, so that each tokenizer puts the space where it does."""
        prompt = self.prompt.format(question=example.text)
        before: list[int] = self.tokenizer.encode(prompt)
        whole: list[int] = self.tokenizer.encode(f"{prompt} {option}")
        n = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
        return whole[:n], whole[n:]


def adapter(
    encoder: Encoder,
    task: Task,
    *,
    lm: str = "",
    temporal: Temporal = "none",
    stride: int = 4,
    latents: int = 64,
    depth: int = 2,
    scorer: Scorer = "likelihood",
    prompt: str = "Question: {question} Answer:",
    lr: float = 3e-3,
    weight_decay: float = 0.05,
    epochs: int = 24,
    batch_size: int = 32,
) -> MultipleChoice:
    """Answers multiple choice with a small frozen language model that reads the encoder's tokens.

    LongViViT's video-to-text recipe (https://arxiv.org/abs/2312.07395, section 3.2): frozen encoder, temporal pooling,
    Perceiver resampler, frozen language model; the visual tokens stand before the prompt, as in VideoPrism
    (https://arxiv.org/abs/2402.13217, appendix G). Only the resampler is trained, by the log-likelihood of right
    options.

    Args:
        lm: any causal language model of transformers, a local folder or hub id; empty means the embedded one.
        temporal: none keeps the tokens of all steps, strided those of every stride-th, mean averages them over time
            (LongViViT).
        stride: for temporal=strided.
        latents: visual tokens that the language model reads.
        depth: layers of the resampler.
        scorer: likelihood is the sum over an option's tokens, likelihood_per_token their mean.
        prompt: what stands between video and option.
        lr: peak learning rate.
        weight_decay: of the matrices.
        epochs: passes over the training examples.
        batch_size: examples in one training step.
    """
    try:
        asked = prompt.format(question="?!") != prompt.format(question="")
    except (KeyError, IndexError, ValueError):
        asked = False
    if not asked:
        raise UserError(f"adapter.prompt={prompt!r}: wanted text with {{question}} and no other braces in it")
    if any(not example.choices for example in (*task.train, *task.test)):
        raise UserError("adapter=multiple_choice needs questions with options; this task has none")
    model, tokenizer = load_lm(lm)
    return MultipleChoice(
        encoder.dim,
        model,
        tokenizer,
        temporal,
        stride,
        latents,
        depth,
        scorer,
        prompt,
        lr,
        weight_decay,
        epochs,
        batch_size,
    )


def load_lm(lm: str) -> tuple[nn.Module, Any]:
    """A causal language model and its tokenizer, from a local folder, a hub id, or (empty) the embedded one.

    Raises:
        UserError: transformers cannot load it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = lm or str(DEMO_LM)
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        raise UserError(f"lm={source}: no config.json there, so it is no model that transformers saved")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, use_safetensors=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"lm={lm}: transformers cannot load it: {reason}") from error
    return model, tokenizer
