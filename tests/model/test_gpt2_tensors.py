"""Weights of a GPT-2 that are what their configuration says, in every form that is accepted, and those that are not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2Model
from transformers.utils import logging

from infty.base.errors import MissingError, UsageError
from infty.model.config import Gpt2ModelConfig
from infty.model.gpt2 import build_gpt2, from_pretrained, save_pretrained
from infty.model.gpt2_tensors import refuse_other_tensors
from infty.model.graft import Graft
from tests.conftest import SMOKE, save_gpt2

Tensors = dict[str, Tensor]


def build() -> Graft:
    sizes = {"num_positions": 16, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "segment_length": 16}
    return build_gpt2(Gpt2ModelConfig.model_validate({"kind": "gpt2", "dropout": 0.0, **sizes}), 400).eval()


def configure(**more: Any) -> GPT2Config:
    sizes: dict[str, Any] = {**SMOKE, **more}
    return GPT2Config(**sizes)


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """Change the tensors of a folder's file."""
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def without_prefix(tensors: Tensors) -> Tensors:
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def with_masks(tensors: Tensors) -> Tensors:
    """As older versions of the library saved them, and the hub's GPT-2 has them."""
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 16, 16, dtype=torch.uint8).tril() for i in range(2)}
    return {**without_prefix(tensors), **masks, "h.0.attn.masked_bias": torch.tensor(-1e4)}


ACCEPTED: dict[str, Callable[[Tensors], Tensors]] = {
    "as it is saved": lambda tensors: tensors,
    "without a prefix": without_prefix,
    "with masks": with_masks,
    "the embedding twice": lambda tensors: {**tensors, "lm_head.weight": tensors["transformer.wte.weight"].clone()},
    "float16": lambda tensors: {name: tensor.half() for name, tensor in tensors.items()},
    "bfloat16, the embedding twice": lambda tensors: {
        name: tensor.bfloat16() for name, tensor in ACCEPTED["the embedding twice"](tensors).items()
    },
    "float64": lambda tensors: {name: tensor.double() for name, tensor in tensors.items()},
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_logits_are_hugging_face_s_own_for_every_form_that_is_accepted(form: str, tmp_path: Path) -> None:
    folder = rewrite(save_gpt2(tmp_path / "weights"), ACCEPTED[form])
    graft = build()
    graft.load_decoder(folder)
    tokens = torch.randint(400, (3, 16))
    expected = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()(tokens).logits
    found = graft(tokens, graft.initial_state(torch.arange(3))).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_those_of_the_bare_transformer_are_accepted(tmp_path: Path) -> None:
    GPT2Model(configure()).save_pretrained(tmp_path)
    refuse_other_tensors(tmp_path, num_layers=2)
    build().load_decoder(tmp_path)


REFUSED: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "an output matrix of its own": (
        lambda tensors: {**tensors, "lm_head.weight": torch.randn(400, 16)},
        "lm_head.weight differs from wte.weight",
    ),
    "the same without a prefix": (
        lambda tensors: {**without_prefix(tensors), "lm_head.weight": torch.randn(400, 16)},
        "lm_head.weight differs from wte.weight",
    ),
    "one that differs in a single number": (
        lambda tensors: {
            **tensors,
            "lm_head.weight": tensors["transformer.wte.weight"] * torch.tensor([1.0] * 15 + [1.1]),
        },
        "lm_head.weight differs from wte.weight",
    ),
    "more layers": (
        lambda tensors: {**tensors, **{name.replace("h.1.", "h.2."): t.clone() for name, t in tensors.items()}},
        r"they are of 3 layers, not 2 \(n_layer in config.json, --set model.num_layers=3\)",
    ),
    "an adapter": (
        lambda tensors: {**tensors, "transformer.h.0.attn.c_attn.lora_A.weight": torch.randn(2, 16)},
        "they hold transformer.h.0.attn.c_attn.lora_A.weight, which no GPT-2 language model has",
    ),
    "whole numbers": (
        lambda tensors: {name: tensor.to(torch.int8) for name, tensor in tensors.items()},
        "is of type I8; wanted F64, F32, F16, BF16",
    ),
    "no number": (
        lambda tensors: {**tensors, "transformer.h.1.ln_1.bias": torch.full((16,), float("nan"))},
        r"transformer.h.1.ln_1.bias holds NaN or infinite numbers: the file is damaged",
    ),
    "two models in one": (
        lambda tensors: {**tensors, **{name: t + 1 for name, t in without_prefix(tensors).items()}},
        "they hold tensors twice",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_make_another_model_of_it_is_refused_in_one_line(what: str, tmp_path: Path) -> None:
    """Hugging Face's library drops layers that a configuration does not have, and keeps two matrices apart.

    https://github.com/huggingface/transformers/pull/42612, seen with 5.24.
    """
    change, message = REFUSED[what]
    folder, graft = rewrite(save_gpt2(tmp_path / "weights"), change), build()
    before = graft.base.transformer.wte.weight.clone()
    with pytest.raises(UsageError, match=message) as caught:
        graft.load_decoder(folder)
    assert "\n" not in str(caught.value)
    assert torch.equal(graft.base.transformer.wte.weight, before)


def test_sizes_that_differ_are_told_in_numbers(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"transformer.wte.weight has sizes \(500, 16\), not \(400, 16\)$"):
        build().load_decoder(save_gpt2(tmp_path, vocab_size=500))


def test_a_classifier_s_weights_are_refused_with_what_to_do(tmp_path: Path) -> None:
    GPT2ForSequenceClassification(configure(pad_token_id=0)).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"hold score.weight, .*save_pretrained\(FOLDER\) leaves it out"):
        build().load_decoder(tmp_path)
    GPT2LMHeadModel.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    build().load_decoder(tmp_path / "again")


def test_hugging_face_s_messages_are_as_the_program_has_them(tmp_path: Path) -> None:
    save_pretrained(build(), tmp_path)
    logging.set_verbosity_info()
    try:
        assert logging.is_progress_bar_enabled()
        from_pretrained(tmp_path)
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (20, True)  # info's number
    finally:
        logging.set_verbosity_warning()
