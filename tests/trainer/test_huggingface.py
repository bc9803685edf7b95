"""Shapes and weights in the words of Hugging Face: the logits of every shape, and the way back."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from cairn.errors import ArtifactError
from trainer.architecture import CLASSES, class_of
from trainer.huggingface import config, from_huggingface, shape_of, to_huggingface
from trainer.loss import Examples, loss
from trainer.model import Transformer
from trainer.recipe import ModelShape

VOCABULARY = 40


def drawn(seed: int) -> list[ModelShape]:
    """Small shapes that are accepted, four for each class, of random parts."""
    rng, found = random.Random(seed), Counter[str]()
    shapes: list[ModelShape] = []
    while len(shapes) < 4 * len(CLASSES):
        heads, head_dim = rng.choice([1, 2, 3, 4]), rng.choice([2, 4, 8, 10])
        width = rng.choice([heads * head_dim, heads * head_dim, 24, 33])
        try:
            shape = ModelShape(
                layers=rng.choice([1, 2, 3]),
                width=width,
                heads=heads,
                kv_heads=rng.choice([heads, heads, 1]),
                head_dim=head_dim,
                mlp_width=rng.choice([4 * width, 20]),
                context=rng.choice([5, 12]),
                causal=rng.random() < 0.6,
                norm=rng.choice(["rmsnorm", "layernorm"]),
                norm_placement=rng.choice(["pre", "post", "output"]),
                norm_eps=rng.choice([1e-8, 1e-5, 1e-2]),
                positions=rng.choice(["rope", "learned"]),
                rope_theta=rng.choice([100.0, 10_000.0]),
                qk_norm=rng.choice(["none", "head", "width"]),
                activation=rng.choice(["silu", "gelu", "gelu-tanh", "relu2"]),
                gated=rng.random() < 0.5,
                bias=rng.random() < 0.5,
                tied=rng.random() < 0.5,
            )
        except ValueError:
            continue
        if found[class_of(shape)] < 4:
            found[class_of(shape)] += 1
            shapes.append(shape)
    return shapes


def scattered(shape: ModelShape, seed: int = 0) -> Transformer:
    """A model with nothing at zero or one."""
    model = Transformer(shape, VOCABULARY)
    model.initialize(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def theirs(model: Transformer) -> Any:
    """The class of Hugging Face with the weights of a model."""
    said = config(model.shape)
    (name,) = said.pop("architectures")
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id"))
    auto: Any = transformers.AutoConfig
    settings = auto.for_model(**said, **ids, vocab_size=VOCABULARY, attn_implementation="eager")
    built = getattr(transformers, name)(settings).eval()
    missing, left = built.load_state_dict(to_huggingface(weights(model), model.shape), strict=False)
    built.tie_weights()
    tied = {"lm_head.weight", "decoder.weight", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    assert set(missing) <= (tied if model.shape.tied else set())
    assert not left
    return built


def weights(model: Transformer) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("seed", range(3))
def test_every_shape_that_is_accepted_has_the_logits_of_its_class(seed: int) -> None:
    for number, shape in enumerate(drawn(seed)):
        model = scattered(shape, number)
        tokens = torch.randint(0, VOCABULARY, (2, shape.context), generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            ours, said = model(tokens), theirs(model)(tokens).logits
        assert ours.std() > 0.05
        assert float((ours - said).abs().max()) < 1e-4 * max(1.0, float(ours.abs().max())), shape
        assert shape.parameters(VOCABULARY) == sum(parameter.numel() for parameter in model.parameters())


def test_the_gradients_of_a_shape_are_those_of_its_class() -> None:
    """The class runs plain operations, of which autograd finds the derivatives; ours are written by hand in part."""
    for name, shape in one_of_each().items():
        model = scattered(shape)
        other = theirs(model)
        tokens = torch.randint(0, VOCABULARY, (2, shape.context), generator=torch.Generator().manual_seed(1))
        targets = tokens.roll(-1, 1)
        losses = loss(model, Examples(tokens, targets))
        ours = dict(model.named_parameters())
        grads = torch.autograd.grad(losses.total / losses.counted, list(ours.values()))
        F.cross_entropy(other(tokens).logits.flatten(0, 1), targets.flatten()).backward()  # type: ignore[no-untyped-call]
        said = dict(other.named_parameters())
        for one, grad in to_huggingface(dict(zip(ours, grads, strict=True)), shape).items():
            if "token_type" not in one:
                assert torch.allclose(grad, said[one].grad, rtol=2e-3, atol=2e-5), f"{name}: {one}"


def one_of_each() -> dict[str, ModelShape]:
    """A drawn shape for every class."""
    return {class_of(shape): shape for shape in drawn(0)}


def test_a_model_directory_gives_back_shape_and_weights(tmp_path: Path) -> None:
    for name, shape in one_of_each().items():
        folder = tmp_path / name
        model = scattered(shape)
        theirs(model).save_pretrained(folder)
        assert shape_of(folder).model_dump() == shape.model_dump() | free(shape)
        found = from_huggingface(folder, shape)
        assert found.keys() == weights(model).keys()
        for name, weight in weights(model).items():
            assert torch.equal(found[name], weight), name


def free(shape: ModelShape) -> dict[str, Any]:
    """What a class does not tell: the base of rotary positions where there are none."""
    return {"rope_theta": 10_000.0} if shape.positions == "learned" else {}


def test_the_first_token_type_of_bert_is_part_of_its_positions(tmp_path: Path) -> None:
    shape = one_of_each()["BertForMaskedLM"]
    bert = theirs(scattered(shape))
    with torch.no_grad():
        bert.bert.embeddings.token_type_embeddings.weight.normal_()
    bert.save_pretrained(tmp_path)
    model = Transformer(shape, VOCABULARY)
    model.load_state_dict(from_huggingface(tmp_path, shape))
    tokens = torch.arange(shape.context)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), bert(tokens).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            transformers.LlamaConfig(
                rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}, mlp_bias=True
            ),
            "mlp_bias is True; what is trained here has False",
        ),
        (
            transformers.LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
            "rope_parameters is {.*linear",
        ),
        (transformers.ModernBertConfig(), "layer_types is "),
        (transformers.GPT2Config(activation_function="tanh"), "no shape of ours: .*activation"),
        (transformers.GPT2Config(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx is True"),
        (transformers.MistralConfig(), "model_type 'mistral' is none of qwen3, llama"),
    ],
    ids=lambda said: getattr(said, "model_type", ""),
)
def test_a_model_that_does_what_no_shape_does_is_refused_by_the_key(tmp_path: Path, settings: Any, told: str) -> None:
    settings.save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=told) as raised:
        shape_of(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("settings", [transformers.GPT2Config(), transformers.BertConfig(), transformers.LlamaConfig()])
def test_the_defaults_of_the_classes_are_shapes(tmp_path: Path, settings: Any) -> None:
    settings.save_pretrained(tmp_path)
    shape = shape_of(tmp_path)
    if settings.model_type == "gpt2":
        assert shape == ModelShape.model_validate({"named": "gpt2-124m"}).model_copy(update={"named": None})
    if settings.model_type == "bert":
        assert shape == ModelShape.model_validate({"named": "bert-base"}).model_copy(update={"named": None})


def test_weights_of_another_shape_are_told(tmp_path: Path) -> None:
    shape = one_of_each()["GPT2LMHeadModel"]
    theirs(scattered(shape)).save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=r"transformer.wpe.weight is \(.*and pretrain.model asks for \(99, "):
        from_huggingface(tmp_path, shape.model_copy(update={"context": 99}))
    with pytest.raises(ArtifactError, match=r"has no weight transformer\.h\.\d+"):
        from_huggingface(tmp_path, shape.model_copy(update={"layers": 9}))
    with pytest.raises(ArtifactError, match=r"pretrain.model has no place for its transformer\.h\.\d+"):
        from_huggingface(tmp_path, shape.model_copy(update={"layers": shape.layers - 1}))
    with pytest.raises(ArtifactError, match="does not load as a model"):
        from_huggingface(tmp_path / "elsewhere", shape)
