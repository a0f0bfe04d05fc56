import inspect
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from evalkit import checkpoint, load_encoder, plugins, trained
from evalkit import lm as language_models
from evalkit.api import Adapter, Batch, Clip, Encoded, Example, Task, UserError
from evalkit.config import resolve
from evalkit.encoders.vivit import ViViT, encoder
from evalkit.metrics import accuracy
from evalkit.mini.language import documents
from evalkit.optim import StackedAdamW
from evalkit.parts import prepare

CLIP = Clip(frames=4, size=32)
TASK = Task(test=(), score=accuracy, classes=("a", "b", "c"))


def small(vocabulary: Path | None = None, **settings: Any) -> ViViT:
    torch.manual_seed(0)
    text = {"vocabulary": 200, "dim": 16, "depth": 1, "heads": 2, "tokens": 32} if vocabulary else None
    return encoder(CLIP, vocabulary, dim=24, depth=2, heads=3, hidden=48, text=text, **settings).eval()


QUESTIONS = [
    Example(
        "1", Path("1"), 1, text="What happens?", choices=("a red ring grows", "a blue cross moves left, then a ring")
    ),
    Example("2", Path("2"), 0, text="What?", choices=("a white circle blinks", "a green square turns red")),
]


def choice(lm: Path | str, task: Task = TASK, **settings: Any) -> Any:
    """An untrained adapter; with an empty lm the embedded one, since a random one is never sure of a word."""
    torch.manual_seed(0)
    return plugins.factory("adapter", "multiple_choice")(
        small(), task, lm=str(lm), latents=3, depth=1, **settings
    ).eval()


def tokens(n: int, steps: int = 2) -> Tensor:
    return torch.randn(n, 1, steps, 4, 24, generator=torch.Generator().manual_seed(1)).half()


@pytest.mark.parametrize("name", ["probe", "contrastive", "multiple_choice"])
def test_every_adapter_fulfils_the_contract(name: str, vocabulary: Path, lm: Path) -> None:
    settings = {"lm": str(lm)} if name == "multiple_choice" else {}
    assert isinstance(plugins.factory("adapter", name)(small(vocabulary), TASK, **settings), Adapter)


def told_apart(probe: Any) -> Batch:
    """Features, as the probe reads them, that tell three classes apart."""
    draw = torch.Generator().manual_seed(0)
    centres, targets = torch.randn(3, 24, generator=draw), [i % 3 for i in range(48)]
    video = centres[targets][:, None, None] + 0.3 * torch.randn(48, 2, 4, 24, generator=draw)
    features = probe.kept.take(Encoded(video, video.mean((1, 2)), (video,) * probe.kept.layers))[:, None]
    return Batch([Example(str(i), Path(str(i)), target) for i, target in enumerate(targets)], features)


def descend(probe: Any, batch: Batch, steps: int) -> None:
    optimizer = StackedAdamW(probe.bank, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        probe.training_step(batch, 0)["loss"].backward()
        optimizer.step()
    probe.eval()


@pytest.mark.parametrize(
    "settings",
    [{"head": "linear"}, {"head": "attentive"}, {"temporal_positions": True}, {"head": "mlap", "layers": 2}],
)
def test_a_probe_learns_classes_that_its_features_tell_apart(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    probe = plugins.factory("adapter", "probe")(small(), TASK, lr=3e-3, **settings)
    batch = told_apart(probe)
    descend(probe, batch, 60)
    found = probe.predict(batch.examples, batch.features)
    assert [prediction.value[0] for prediction in found] == [example.target for example in batch.examples]
    assert all(sorted(prediction.value) == [0, 1, 2] for prediction in found)


def test_the_attentive_head_is_torchs_cross_attention_with_one_query() -> None:
    """Its loss and its predictions too, over two views."""
    probe = plugins.factory("adapter", "probe")(small(), TASK, head="attentive", label_smoothing=0.1).eval()
    state = probe.bank.state(0)
    attention = nn.MultiheadAttention(24, probe.bank.heads, batch_first=True)
    named = {name.removeprefix("pool.attention."): value for name, value in state.items() if "attention" in name}
    attention.load_state_dict(named)
    features = torch.randn(5, 2, 4, 6, 24)
    normed = torch.nn.functional.layer_norm(
        features.flatten(0, 1).flatten(1, 2), (24,), state["pool.norm.weight"], state["pool.norm.bias"]
    )
    pooled = attention(state["pool.query"].expand(10, -1, -1), normed, normed)[0][:, 0]
    logits = pooled @ state["classify.1.weight"].T + state["classify.1.bias"]
    assert torch.allclose(probe(features.flatten(0, 1))[0], logits, atol=1e-5)
    examples = [Example(str(i), Path(str(i)), i % 3) for i in range(5)]
    target = torch.tensor([i % 3 for i in range(5)]).repeat_interleave(2)
    loss = nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
    assert probe.training_step(Batch(examples, features), 0)["loss"].item() == pytest.approx(loss.item(), abs=1e-5)
    best = logits.softmax(-1).view(5, 2, 3).mean(1).topk(3)
    assert [p.value for p in probe.predict(examples, features)] == best.indices.tolist()


def test_a_probe_averages_the_softmax_of_its_views() -> None:
    probe = plugins.factory("adapter", "probe")(small(), TASK, head="linear").eval()
    views = torch.randn(1, 3, 24)
    expected = torch.stack([probe(views[:, i])[0].softmax(-1) for i in range(3)]).mean(0)[0]
    detail = probe.predict([Example("1", Path("1"))], views)[0].detail
    assert detail["probabilities"] == pytest.approx(sorted(expected.tolist(), reverse=True), abs=1e-5)


def several(*targets: Any) -> Task:
    train = [Example(str(i), Path(str(i)), target) for i, target in enumerate(targets)]
    return replace(TASK, train=train)


def test_a_probe_gives_every_class_its_own_sigmoid_where_an_example_may_have_several() -> None:
    """Over two views: torch's binary cross-entropy, and the mean of the sigmoid."""
    task = several((0, 2), (), [1], (0, 1, 2))
    probe = plugins.factory("adapter", "probe")(small(), task, head="linear").eval()
    features = torch.randn(4, 2, 24)
    present = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
    logits = probe(features.flatten(0, 1))[0].unflatten(0, (4, 2))
    loss = nn.functional.binary_cross_entropy_with_logits(logits, present[:, None].expand(4, 2, 3))
    assert probe.training_step(Batch(task.train, features), 0)["loss"].item() == pytest.approx(loss.item(), abs=1e-6)
    found = [prediction.value for prediction in probe.predict(task.train, features)]
    assert torch.allclose(torch.tensor(found), logits.sigmoid().mean(1), atol=1e-6)


def test_a_probe_learns_which_of_several_classes_are_there() -> None:
    targets = [(), (0,), (0, 1), (2,), (1, 2)]
    probe = plugins.factory("adapter", "probe")(small(), several(*targets), lr=1e-2)
    draw = torch.Generator().manual_seed(0)
    batch = Batch(several(*targets * 8).train, torch.randn(5, 1, 2, 4, 24, generator=draw).repeat(8, 1, 1, 1, 1))
    descend(probe, batch, 60)
    found = probe.predict(batch.examples, batch.features)
    assert [tuple(c for c in range(3) if p.value[c] > 0.5) for p in found] == targets * 8


@pytest.mark.parametrize(
    ("targets", "settings", "told"),
    [
        (((0,), 1), {}, "example '1' has the target 1, others have lists of class indices: wanted one kind"),
        (((0,), (1, 3)), {}, "example '1': target 3 is no index of the task's 3 classes"),
        (((0,),), {"label_smoothing": 0.1}, "adapter.label_smoothing is of the softmax"),
    ],
)
def test_what_does_not_fit_several_classes_is_refused(
    targets: tuple[Any, ...], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        plugins.factory("adapter", "probe")(small(), several(*targets), **settings)


def test_the_equalization_loss_spares_classes_that_are_rare_in_training() -> None:
    task = several(*[0] * 60, *[1] * 38, 2, 2)
    probe = plugins.factory("adapter", "probe")(small(), task, eql_gamma=0.9, eql_lambda=0.05)
    assert probe.bank.spared == (0, 0, 0.9)
    probe.bank.alone(0)
    with pytest.raises(UserError, match=r"eql_lambda=0.005: no class is that rare; the rarest has 0.02 of the ex"):
        plugins.factory("adapter", "probe")(small(), task, eql_gamma=0.9)
    with pytest.raises(UserError, match="adapter.eql_gamma is of the softmax; this task has several classes"):
        plugins.factory("adapter", "probe")(small(), several((0,), (1,)), eql_gamma=0.9)
    with pytest.raises(UserError, match="adapter.eql_gamma=2: wanted a share from 0 to 1"):
        plugins.factory("adapter", "probe")(small(), task, eql_gamma=2)


def grid(**settings: Any) -> Any:
    """Three points that differ in their rate and smoothing."""
    module, make = plugins.module_and_factory("adapter", "probe")
    defaults = {name: p.default for name, p in inspect.signature(make).parameters.items() if p.kind is p.KEYWORD_ONLY}
    rates = [{"lr": 1e-9}, {"lr": 1e-2, "weight_decay": 0.3}, {"lr": 1e-2, "label_smoothing": 0.3}]
    return module.grid(small(), TASK, [{**defaults, **settings, **rate} for rate in rates])


@pytest.mark.parametrize("head", ["linear", "attentive"])
def test_choosing_leaves_one_probe_that_is_what_it_was_among_the_others(head: str) -> None:
    probe = grid(head=head)
    batch = told_apart(probe)
    descend(probe, batch, 30)
    found = probe.predict_all(batch.examples, batch.features)
    right = [sum(p.value[0] == i % 3 for i, p in enumerate(of_point)) for of_point in found]
    assert probe.points == 3 and right[0] < right[1] == right[2] == 48
    assert found[1] != found[2]
    with pytest.raises(ValueError, match="too many values"):
        probe.predict(batch.examples, batch.features)
    probe.choose(2)
    assert probe.points == 1 and all(len(p) == 1 for p in probe.parameters())
    for one, other in zip(probe.predict(batch.examples, batch.features), found[2], strict=True):
        assert one.value == other.value
        assert one.detail["probabilities"] == pytest.approx(other.detail["probabilities"], abs=1e-5)


@pytest.mark.parametrize("head", ["linear", "attentive"])
def test_a_probes_file_has_the_names_of_torchs_own_modules_and_comes_back(head: str, tmp_path: Path) -> None:
    probe = grid(head=head)
    descend(probe, told_apart(probe), 3)
    probe.choose(1)
    trained.save(probe, tmp_path / "a", {"settings": {}})
    names = {"classify.1.weight", "classify.1.bias"} | (
        {"pool.weight", "pool.bias"}
        if head == "linear"
        else {"pool.query", "pool.norm.weight", "pool.norm.bias"}
        | {f"pool.attention.{part}{kind}" for part in ("in_proj_", "out_proj.") for kind in ("weight", "bias")}
    )
    stored = load_file(tmp_path / "a" / "adapter.safetensors")
    assert set(stored) == names
    torch.manual_seed(1)
    other = plugins.factory("adapter", "probe")(small(), TASK, head=head)
    other.bank.stacked["weight"].data.zero_()
    trained.restore(other, tmp_path / "a")
    assert all(torch.equal(value.half(), stored[name]) for name, value in trained.learned(other).items())


def test_positions_in_time_are_refused_for_a_linear_probe() -> None:
    with pytest.raises(UserError, match="temporal_positions=true has no effect with adapter.head=linear"):
        plugins.factory("adapter", "probe")(small(), TASK, head="linear", temporal_positions=True)


def test_mlap_keeps_the_last_layers_and_its_file_has_a_layer_for_each(tmp_path: Path) -> None:
    probe = plugins.factory("adapter", "probe")(small(), TASK, head="mlap", layers=2).eval()
    with torch.inference_mode():
        encoded = small()(torch.randn(3, 4, 3, 32, 32), layers=2)
    features = probe.kept.take(encoded)[:, None]
    assert features.shape[2] == 2 and probe.predict([Example("1", Path("1"))], features[:1])[0].value
    trained.save(probe, tmp_path / "a", {"settings": {}})
    torch.manual_seed(1)
    other = plugins.factory("adapter", "probe")(small(), TASK, head="mlap", layers=2).eval()
    other.bank.stacked["up_weight1"].data.zero_()
    trained.restore(other, tmp_path / "a")
    assert torch.allclose(other(features[:, 0]), probe(features[:, 0]), atol=1e-2)
    assert "pool.layers.1.mlp.3.weight" in load_file(tmp_path / "a" / "adapter.safetensors")
    assert plugins.factory("adapter", "probe")(small(), TASK, head="mlap").kept.layers == 4


def test_layers_are_refused_for_a_head_that_reads_one() -> None:
    with pytest.raises(UserError, match="adapter.layers=2 has no effect with adapter.head=attentive; use head=mlap"):
        plugins.factory("adapter", "probe")(small(), TASK, layers=2)


def test_a_number_of_heads_that_does_not_divide_the_width_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"adapter.heads=5 does not divide the encoder's width 24; use one of \[1, 2, 3"
    ):
        plugins.factory("adapter", "probe")(small(), TASK, heads=5)


def test_option_likelihoods_equal_those_of_one_option_at_a_time(lm: Path) -> None:
    """Padding and batching change nothing: transformers' own loss on each sequence alone is the reference."""
    adapter = choice(lm)
    features = tokens(2)
    predictions = adapter.predict(QUESTIONS, features)
    for example, prediction, feature in zip(QUESTIONS, predictions, features, strict=True):
        visual = adapter.reader.resampler(feature.float()) * adapter.reader.scale
        for text, found in zip(example.choices, prediction.detail["log_likelihood"], strict=True):
            prompt = adapter.reader.tokenizer.encode(f"Question: {example.text} Answer:")
            option = adapter.reader.tokenizer.encode(text, add_special_tokens=False)
            ids = torch.tensor([prompt + option])
            embedded = torch.cat([visual, adapter.reader.words(ids)], 1)
            labels = torch.cat([torch.full((1, 3 + len(prompt)), -100), ids[:, len(prompt) :]], 1)
            loss = adapter.reader.lm(inputs_embeds=embedded, labels=labels).loss
            assert found == pytest.approx(-loss.item() * len(option), abs=2e-4)


def test_options_are_told_as_running_text_by_a_byte_level_tokenizer_too(tmp_path: Path) -> None:
    """GPT-2's tokens carry the space before a word; an option that is encoded alone would lose it."""
    from tokenizers.implementations.byte_level_bpe import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    from evalkit.mini.language import documents

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(documents(0, 200), vocab_size=400, show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=bpe.get_vocab_size(), n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    adapter = choice(tmp_path)
    found = adapter.predict(QUESTIONS[1:], tokens(1))[0].detail
    visual = adapter.reader.resampler(tokens(1)[0].float()) * adapter.reader.scale
    prompt = adapter.reader.tokenizer.encode("Question: What? Answer:")
    option = adapter.reader.tokenizer.encode(" a white circle blinks")
    ids = torch.tensor([prompt + option])
    labels = torch.cat([torch.full((1, 3 + len(prompt)), -100), ids[:, len(prompt) :]], 1)
    loss = adapter.reader.lm(inputs_embeds=torch.cat([visual, adapter.reader.words(ids)], 1), labels=labels).loss
    assert found["tokens"][0] == len(option)
    assert found["log_likelihood"][0] == pytest.approx(-loss.item() * len(option), abs=2e-4)


def test_the_two_likelihood_scorers_are_the_sum_and_the_mean(lm: Path) -> None:
    plain, mean = choice(lm), choice(lm, scorer="likelihood_per_token")
    for one, other in zip(plain.predict(QUESTIONS, tokens(2)), mean.predict(QUESTIONS, tokens(2)), strict=True):
        sums, counts = one.detail["log_likelihood"], one.detail["tokens"]
        assert one.value == sums.index(max(sums))
        means = [s / n for s, n in zip(sums, counts, strict=True)]
        assert other.value == means.index(max(means))


def test_the_order_of_options_does_not_change_their_likelihood(lm: Path) -> None:
    adapter = choice(lm)
    turned = [replace(example, choices=example.choices[::-1]) for example in QUESTIONS]
    for one, other in zip(adapter.predict(QUESTIONS, tokens(2)), adapter.predict(turned, tokens(2)), strict=True):
        assert one.detail["log_likelihood"] == pytest.approx(other.detail["log_likelihood"][::-1], abs=1e-4)


def test_the_blind_control_sees_no_video(lm: Path) -> None:
    adapter = choice(lm)
    blind = adapter.predict(QUESTIONS, None)
    assert blind[0].detail["log_likelihood"] != adapter.predict(QUESTIONS, tokens(2))[0].detail["log_likelihood"]


@pytest.mark.parametrize(("temporal", "steps"), [("none", 8), ("strided", 2), ("mean", 1)])
def test_temporal_pooling_keeps_the_named_steps(lm: Path, temporal: str, steps: int) -> None:
    encoded = Encoded(torch.randn(2, 8, 4, 24), torch.randn(2, 24))
    kept = choice(lm, temporal=temporal).kept.take(encoded)
    assert kept.shape == (2, steps, 4, 24)
    wanted = {"none": encoded.tokens, "strided": encoded.tokens[:, 2::4], "mean": encoded.tokens.mean(1, keepdim=True)}
    assert torch.equal(kept, wanted[temporal].half())


def test_the_resampler_tells_the_order_of_steps(lm: Path) -> None:
    adapter = choice(lm)
    features = tokens(1, steps=6).float()[:, 0]
    assert not torch.allclose(adapter.reader.resampler(features), adapter.reader.resampler(features.flip(1)), atol=1e-5)


def test_training_multiple_choice_leaves_the_language_model_as_it_was() -> None:
    adapter = choice("")
    before = adapter.frozen["lm"]
    start = adapter.training_step(Batch(QUESTIONS, tokens(2)), 0)
    optimizer = torch.optim.AdamW([p for p in adapter.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = adapter.training_step(Batch(QUESTIONS, tokens(2)), 0)
        loss.backward()
        optimizer.step()
    assert loss < start - 0.05
    assert adapter.frozen["lm"] == before


def test_a_language_model_that_transformers_cannot_load_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lm=.*: no config.json there, so it is no model that transformers saved"):
        choice(tmp_path)


def contrastive(vocabulary: Path, task: Task = TASK, **settings: Any) -> Any:
    return plugins.factory("adapter", "contrastive")(small(vocabulary), task, **settings)


def test_the_contrastive_loss_is_the_symmetric_cross_entropy(vocabulary: Path) -> None:
    adapter = contrastive(vocabulary, task=Task(test=(), score=accuracy), temperature=0.1)
    examples = [Example(str(i), Path(str(i)), text=f"a {c} ring grows") for i, c in enumerate(("red", "blue", "white"))]
    video = torch.randint(0, 256, (3, 1, 4, 3, 32, 32), dtype=torch.uint8)
    found = adapter.training_step(Batch(examples, video), 0)
    v = adapter.encoder(CLIP.normalise(video[:, 0])).pooled
    t = adapter.encoder.encode_text([example.text for example in examples])
    likeness = torch.stack([nn.functional.cosine_similarity(one, t) for one in v]) / 0.1
    expected = -(likeness.log_softmax(1).diag().mean() + likeness.log_softmax(0).diag().mean()) / 2
    assert found.item() == pytest.approx(expected.item(), abs=1e-4)


def test_videos_with_equal_words_are_no_negatives_of_each_other(vocabulary: Path) -> None:
    adapter = contrastive(vocabulary, task=Task(test=(), score=accuracy))
    video = torch.randint(0, 256, (2, 1, 4, 3, 32, 32), dtype=torch.uint8)

    def loss(*words: str) -> float:
        examples = [Example(str(i), Path(str(i)), text=text) for i, text in enumerate(words)]
        return adapter.training_step(Batch(examples, video), 0).item()  # type: ignore[no-any-return]

    assert loss("a red ring", "a red ring") == 0 < loss("a red ring", "a blue ring")


def test_wrong_options_are_further_negatives_of_their_video(vocabulary: Path) -> None:
    torch.manual_seed(0)
    video = torch.randint(0, 256, (2, 1, 4, 3, 32, 32), dtype=torch.uint8)
    adapter = contrastive(vocabulary)
    plain = [replace(example, choices=(example.choices[example.target],), target=0) for example in QUESTIONS]
    assert adapter.training_step(Batch(QUESTIONS, video), 0) > adapter.training_step(Batch(plain, video), 0)


@pytest.mark.parametrize(
    ("tune", "trainable"),
    [("all", None), ("head", {"text"}), ("text", {"text"}), ("1", {"blocks", "norm"})],
)
def test_only_what_tune_names_is_trainable(vocabulary: Path, tune: str, trainable: set[str] | None) -> None:
    adapter = contrastive(vocabulary, tune=tune)
    names = [name for name, p in adapter.encoder.named_parameters() if p.requires_grad]
    if trainable is None:
        assert len(names) == len(list(adapter.encoder.parameters()))
    else:
        assert {name.split(".")[0] for name in names} == trainable
    if tune == "1":
        assert all(name.startswith(("blocks.1.", "norm.")) for name in names)
    if tune == "head":
        assert names == ["text.projection.weight"]


def tuned(encoder: nn.Module, tune: str) -> set[str]:
    """The names of what contrastive training changes of an encoder, without the numbers of layers and tubes."""
    plugins.factory("adapter", "contrastive")(encoder, TASK, tune=tune)
    names = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    return {".".join(part for part in name.split(".")[:4] if not part.isdigit()) for name in names}


def test_adapters_and_temporal_attention_are_tuned_with_the_patch_alone(vocabulary: Path) -> None:
    tubes = [{"kernel": (k, 8, 8), "stride": (2, 8, 8)} for k in (1, 2)]
    many = small(vocabulary, adapter=4, tubes=tubes, image_path=True)
    assert tuned(many, "adapters") == {"patch.weight", "patch.bias", "blocks.adapter"}
    factorised = small(vocabulary, attention="factorised", adapter=4, image_path=True)
    inside = {"blocks.temporal.attention", "blocks.temporal.norm", "blocks.temporal.alpha"}
    assert tuned(factorised, "temporal") == {"patch.weight", "patch.bias"} | inside
    assert tuned(factorised, "adapters") == {"patch.weight", "patch.bias", "blocks.adapter"}


def test_lora_is_tuned_with_the_patch_alone(vocabulary: Path) -> None:
    encoder = small(vocabulary, lora=2)
    outside = {name for name in tuned(encoder, "lora") if not name.startswith("blocks.")}
    assert outside == {"patch.weight", "patch.bias"}
    inside = [name for name, p in encoder.named_parameters() if p.requires_grad and name.startswith("blocks.")]
    assert len(inside) == 2 * 4 * 2 and all(".lora_" in name for name in inside)


def test_the_last_layers_are_tuned_with_the_pooling_that_follows_them(vocabulary: Path) -> None:
    encoder = small(vocabulary, pooling="attention")
    assert {name.split(".")[0] for name in tuned(encoder, "2")} == {"blocks", "norm", "pool"}


@pytest.mark.parametrize(
    ("settings", "tune", "allowed"),
    [
        ({}, "3", "all, text, head"),
        ({}, "adapters", "all, text, head"),
        ({}, "0", "all, text, head"),
        ({"adapter": 4}, "lora", "all, text, head, adapters"),
        ({"attention": "factorised"}, "patch", "all, text, head, temporal"),
    ],
)
def test_a_wrong_tune_is_told_what_is_allowed(
    vocabulary: Path, settings: dict[str, Any], tune: str, allowed: str
) -> None:
    wanted = f"adapter.tune={tune}: wanted {allowed}, or a number of layers from 1 to 2"
    with pytest.raises(UserError, match=f"^{wanted}$"):
        tuned(small(vocabulary, **settings), tune)


def test_contrastive_answers_with_the_nearest_words(vocabulary: Path) -> None:
    adapter = contrastive(vocabulary)
    with torch.no_grad():
        text = adapter.encoder.encode_text([QUESTIONS[0].choices[1], QUESTIONS[1].choices[0]])
        assert [p.value for p in adapter.predict(QUESTIONS, text[:, None])] == [1, 0]


def test_an_encoder_without_text_cannot_be_trained_contrastively() -> None:
    with pytest.raises(UserError, match="needs an encoder with a text tower"):
        plugins.factory("adapter", "contrastive")(small(), TASK)


def test_what_an_adapter_learned_comes_back_from_disk(tmp_path: Path, lm: Path) -> None:
    adapter = choice(lm)
    trained.save(adapter, tmp_path / "a", {"settings": {"latents": 3}})
    torch.manual_seed(random.randrange(1000) + 1)
    other = choice(lm)
    other.reader.resampler.latents.data.zero_()
    trained.restore(other, tmp_path / "a")
    for one, two in zip(trained.learned(adapter).values(), trained.learned(other).values(), strict=True):
        assert torch.allclose(one, two, atol=1e-3)
    assert not any(name.startswith("lm.") for name in trained.learned(adapter))
    assert trained.settings(tmp_path / "a") == {"latents": 3}


def test_an_adapter_is_not_restored_over_another_language_model(tmp_path: Path, lm: Path) -> None:
    adapter = choice(lm)
    trained.save(adapter, tmp_path / "a", {"settings": {}})
    adapter.reader.lm.get_input_embeddings().weight.data.add_(1)
    with pytest.raises(UserError, match="was trained with lm .* train it again"):
        trained.restore(adapter, tmp_path / "a")


@pytest.fixture(scope="module")
def lettered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random language model whose vocabulary has capital letters, too, which the embedded one's has not."""
    folder = tmp_path_factory.mktemp("lettered")
    texts = [*documents(0, 500), *(f"A: {i} B: C: D: E: " for i in range(500))]
    (folder / "tokenizer.model").write_bytes(language_models.vocabulary(texts, 220))
    tokenizer = LlamaTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=2, bos_token_id=2, eos_token_id=3, **shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.lm_head.weight.data.mul_(20)  # else it is never sure of a word
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("scorer", ["letter", "letter_said"])
def test_letters_that_the_language_model_does_not_know_are_refused(scorer: str) -> None:
    with pytest.raises(UserError, match=f"scorer={scorer}: the language model's vocabulary has no 'B'; use another lm"):
        choice("", scorer=scorer, task=replace(TASK, test=QUESTIONS))


@pytest.mark.parametrize("scorer", ["likelihood", "letter", "letter_said", "yes"])
def test_every_scorer_learns_what_is_right_in_its_own_words(scorer: str, lettered: Path) -> None:
    """Those that only weigh likelihoods otherwise are trained as `likelihood` is."""
    adapter = choice(lettered if scorer.startswith("letter") else "", scorer=scorer)
    optimizer = torch.optim.AdamW([p for p in adapter.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(60 if scorer.startswith("letter") else 25):
        optimizer.zero_grad()
        losses.append(adapter.training_step(Batch(QUESTIONS, tokens(2)), 0))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    assert all(one.value in (0, 1, None) for one in adapter.predict(QUESTIONS, tokens(2)))


def test_pointwise_mutual_information_is_what_question_and_video_add(lm: Path) -> None:
    plain, pmi = choice(lm), choice(lm, scorer="pmi")
    asked = [replace(example, text="") for example in QUESTIONS]
    alone = plain.predict(asked, None)
    for one, bare, other in zip(
        plain.predict(QUESTIONS, tokens(2)), alone, pmi.predict(QUESTIONS, tokens(2)), strict=True
    ):
        added = [a - b for a, b in zip(one.detail["log_likelihood"], bare.detail["log_likelihood"], strict=True)]
        assert other.value == added.index(max(added))
        assert other.detail == one.detail


@pytest.mark.parametrize(
    ("said", "place"),
    [("B", 1), ("b.", 1), ("(C) a ring", 2), ("A: a red ring", 0), ("the answer is (B)", 1)],
)
def test_a_letter_that_is_said_names_its_option(said: str, place: int) -> None:
    assert plugins.module_and_factory("adapter", "multiple_choice")[0].named(said, 3).value == place


@pytest.mark.parametrize("said", ["", "a red ring", "D", "Both", "7"])
def test_what_names_no_option_is_a_failure_with_its_words(said: str) -> None:
    found = plugins.module_and_factory("adapter", "multiple_choice")[0].named(said, 3)
    assert found.value is None
    assert found.detail == {"said": said, "failure": f"the answer {said!r} names none of 3 options"}


def test_a_captioner_s_weights_answer_multiple_choice_and_the_other_way_round(tmp_path: Path, tiny: Path) -> None:
    """As LongViViT's do: EgoSchema has nothing to train on."""
    encoder = load_encoder(tiny)
    assert isinstance(encoder, nn.Module)
    for one, other in (("captioner", "multiple_choice"), ("multiple_choice", "captioner")):
        settings = {"join": "prefix", "latents": 3, "depth": 1, "lr": 0.5}
        learned = plugins.factory("adapter", one)(encoder, TASK, **settings)
        record = {"settings": settings, "frozen": {"encoder": checkpoint.sha256(encoder)}}
        trained.save(learned, trained.place(tmp_path / one, one), record)
        words = ["task=egoschema", "mini=true", f"ckpt={tiny}", f"adapter={other}", f"adapter.from={tmp_path / one}"]
        if other == "captioner":
            words[0] = "task=youcook2"
        with prepare(resolve("run", words)) as parts:
            assert parts.fitted_from == tmp_path / one / "adapters" / one
            assert (parts.settings["latents"], parts.settings["depth"], parts.settings["lr"]) == (3, 1, 3e-3)
            for name, value in trained.learned(parts.adapter).items():
                assert torch.equal(value.half(), trained.learned(learned)[name].half())
