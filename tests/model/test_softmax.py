"""The adaptive softmax against a plain one, against torch's own, and at the sizes of the paper."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from infty.base.batch import UNSCORED
from infty.base.errors import UsageError
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.model.interface import count_parameters
from infty.model.softmax import AdaptiveConfig, AdaptiveSoftmax, Softmax, TiedOutput

VOCAB, HIDDEN, CUTOFFS = 31, 7, (5, 11, 23)


def adaptive(cutoffs: tuple[int, ...] = CUTOFFS) -> AdaptiveSoftmax:
    return AdaptiveSoftmax(
        torch.randn(VOCAB, HIDDEN),
        torch.randn(VOCAB),
        torch.randn(len(cutoffs), HIDDEN),
        torch.randn(len(cutoffs)),
        cutoffs,
    )


@pytest.mark.parametrize("cutoffs", [CUTOFFS, (30,), ()])
def test_probabilities_sum_to_one_and_losses_are_theirs(float64: None, cutoffs: tuple[int, ...]) -> None:
    softmax, x = adaptive(cutoffs), torch.randn(3, 13, HIDDEN)
    targets = torch.randint(VOCAB, (3, 13))
    logits = softmax.logits(x)
    if cutoffs:
        torch.testing.assert_close(logits.exp().sum(-1), torch.ones(3, 13))
    wanted = -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(softmax.nats(x, targets), wanted)


def test_equals_torchs_adaptive_softmax_with_projections_of_one(float64: None) -> None:
    ours, x, targets = adaptive(), torch.randn(40, HIDDEN), torch.randint(VOCAB, (40,))
    theirs = nn.AdaptiveLogSoftmaxWithLoss(HIDDEN, VOCAB, list(CUTOFFS), div_value=1.0, head_bias=True)
    with torch.no_grad():
        theirs.head.weight.copy_(torch.cat([ours.weight[:5], ours.cluster_weight]))
        theirs.head.bias.copy_(torch.cat([ours.bias[:5], ours.cluster_bias]))
        for tail, (low, high) in zip(theirs.tail, ((5, 11), (11, 23), (23, 31)), strict=True):
            tail[0].weight.copy_(torch.eye(HIDDEN))  # pyright: ignore[reportIndexIssue]
            tail[1].weight.copy_(ours.weight[low:high])  # pyright: ignore[reportIndexIssue]
    unbiased = AdaptiveSoftmax(
        ours.weight,
        torch.cat([ours.bias[:5], torch.zeros(VOCAB - 5)]),  # torch's clusters have no bias
        ours.cluster_weight,
        ours.cluster_bias,
        CUTOFFS,
    )
    torch.testing.assert_close(unbiased.logits(x), theirs.log_prob(x))
    torch.testing.assert_close(unbiased.nats(x, targets), -theirs(x, targets).output)


def test_gradients_are_those_of_the_whole_softmax(float64: None) -> None:
    softmax, x = adaptive(), torch.randn(2, 11, HIDDEN, requires_grad=True)
    targets = torch.randint(VOCAB, (2, 11))
    targets[0, :3] = UNSCORED
    parts = [x, softmax.weight.requires_grad_(), softmax.bias.requires_grad_(), softmax.cluster_weight.requires_grad_()]
    fast = torch.autograd.grad(softmax.nats(x, targets).sum(), parts)
    plain = F.nll_loss(softmax.logits(x).flatten(0, 1), targets.flatten(), ignore_index=UNSCORED, reduction="sum")
    for found, wanted in zip(fast, torch.autograd.grad(plain, parts), strict=True):
        torch.testing.assert_close(found, wanted)


def test_unscored_positions_cost_nothing() -> None:
    for softmax in (adaptive(), Softmax(torch.randn(VOCAB, HIDDEN))):
        targets = torch.full((2, 3), UNSCORED)
        assert softmax.nats(torch.randn(2, 3, HIDDEN), targets).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize(("cutoffs", "message"), [((5, 5), "rise"), ((0, 5), "above 0")])
def test_cutoffs_that_do_not_rise_are_refused(cutoffs: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveConfig(cutoffs=cutoffs)


def test_a_cutoff_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError, match="not below the 23 words"):
        TiedOutput(AdaptiveConfig(cutoffs=(5, 23)), HIDDEN, 23)


def test_the_embedding_is_shared_and_counts_once() -> None:
    sizes = {"num_layers": 1, "num_heads": 1, "hidden_size": 8, "feed_forward_size": 8, "dropout": 0.0}
    config = DecoderConfig(**sizes, segment_length=4, short_term_length=4, adaptive=AdaptiveConfig(cutoffs=(5, 11)))
    tied = Decoder(config, VOCAB)
    plain = Decoder(config.model_copy(update={"adaptive": None}), VOCAB)
    assert count_parameters(plain) - count_parameters(tied) == 8 * VOCAB - (VOCAB + 2 * 8 + 2)
    output = tied(torch.randint(VOCAB, (2, 4)), tied.initial_state(torch.arange(2)))
    output.nats(torch.randint(VOCAB, (2, 4))).sum().backward()
    assert tied.embedding.weight.grad is not None
    assert len(tied.embedding.weight.grad.abs().sum(1).nonzero()) > 8  # also of words that were no input
