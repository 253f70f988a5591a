"""Memory tokens against a decoder that has them in its vocabulary, and what reading teaches to write."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from infty.memory.contract import KnockOut
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.model.recurrent import RecurrentDecoder
from tests.model.test_decoder import BASE, BATCH, SEGMENT, VOCAB, segments

COUNT = 3
ALONE: dict[str, Any] = {**BASE, "short_term_length": 0}  # nothing but memory tokens leads from segment to segment


def make(**changes: Any) -> RecurrentDecoder:
    return RecurrentDecoder(DecoderConfig(**{**ALONE, "memory_tokens": COUNT, **changes}), VOCAB)


def read_by_vocabulary(model: RecurrentDecoder, tokens: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and what is written, by a plain decoder that has a row's memory tokens as further words."""
    plain = Decoder(DecoderConfig(**{**ALONE, "segment_length": SEGMENT + 2 * COUNT}), VOCAB + COUNT)
    own: dict[str, Tensor] = {
        name: value for name, value in model.state_dict().items() if not name.startswith("tokens.")
    }
    words = memory / model.config.hidden_size**0.5
    for name in ("embedding.weight", "output.weight"):
        own[name] = torch.cat([own[name], words])
    plain.load_state_dict(own)
    row = torch.cat([torch.arange(VOCAB, VOCAB + COUNT), tokens, torch.arange(VOCAB, VOCAB + COUNT)])[None]
    output = plain(row, plain.initial_state(torch.zeros(1, dtype=torch.long)))
    return output.logits[0, COUNT:-COUNT, :VOCAB], output.hidden[0, -COUNT:]


def test_it_reads_as_a_decoder_that_has_the_memory_tokens_as_words(float64: None) -> None:
    """Three segments, the last short; what the second and third begin with is what the one before made of the last."""
    model, parts = make(), [*segments(2), segments(1)[0][:, :3]]
    initial: Tensor = model.tokens.memory.initial
    state = model.initial_state(torch.arange(BATCH))
    memory: list[Tensor] = [initial] * BATCH
    with torch.no_grad():
        for tokens in parts:
            output = model(tokens, state)
            state = output.state
            assert not model.is_settled(state)
            for row in range(BATCH):
                logits, written = read_by_vocabulary(model, tokens[row], memory[row])
                torch.testing.assert_close(output.logits[row], logits)
                memory[row] = written + initial


def test_what_to_write_is_learnt_by_the_segments_that_read_it(float64: None) -> None:
    """The loss of the third segment depends on the first one's tokens, in one graph through what was written twice."""
    model, parts = make(), segments(3)
    seen: list[Tensor] = []
    model.embedding.register_forward_hook(lambda _m, _i, out: seen.append(out.requires_grad_()) or None)
    state = model.initial_state(torch.arange(BATCH))
    for tokens in parts[:-1]:
        state = model(tokens, state).state
    (gradient,) = torch.autograd.grad(model(parts[-1], state).logits.square().sum(), seen[0])
    assert (gradient.abs().sum(2) > 0).all()


@pytest.mark.parametrize("kind", ["zero", "other"])
def test_a_knock_out_is_read_and_not_kept(float64: None, kind: KnockOut) -> None:
    model, (first, second) = make(), [torch.randint(VOCAB, (4, SEGMENT)) for _ in range(2)]
    with torch.no_grad():
        before = model(first, model.initial_state(torch.arange(4))).state
        model.tokens.knocked_out = kind
        found = model(second, before).logits
        model.tokens.knocked_out = None
        if kind == "zero":
            wanted = model(second, model.initial_state(torch.arange(4))).logits
        else:
            wanted = model(second, model(first[[2, 3, 0, 1]], model.initial_state(torch.arange(4))).state).logits
    torch.testing.assert_close(found, wanted)


def test_it_has_room_for_its_tokens_and_no_other_memory_beside() -> None:
    config = DecoderConfig(**{**ALONE, "memory_tokens": COUNT})
    assert (config.read_length, config.attended_length, config.memory_slots) == (SEGMENT + 6, SEGMENT + 6, 3)
    assert isinstance(config.build(VOCAB, 0), RecurrentDecoder)
    assert "memory_tokens" not in DecoderConfig(**ALONE).model_dump()
    with pytest.raises(ValidationError, match="are two memories"):
        DecoderConfig(**{**ALONE, "memory_tokens": 2, "long_range": {"kind": "mean"}})
