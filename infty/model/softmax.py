"""Predict the next token from hidden states: by a plain softmax, or an adaptive one (Grave et al. 2017) that is tied.

The vocabulary is sorted by falling frequency and cut at c_1 < c_2 < …: the head decides between the first c_1 words and
the clusters, a cluster between its own words. So rare words cost nothing unless they are targets:

    p(w) = p_head(w)                         for w < c_1
    p(w) = p_head(cluster of w) · p_cluster(w)  for the others

All clusters have the full hidden size (div_val 1, as in Transformer-XL's model), and word w's row is its embedding.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from infty.base.batch import UNSCORED
from infty.base.errors import UsageError
from infty.base.files import Strict
from infty.memory.precision import HOST
from infty.memory.rows import send

Hidden = Float[Tensor, "*positions hidden"]


class AdaptiveConfig(Strict):
    """Cuts of the vocabulary; without them it is a plain softmax, tied to the embedding."""

    cutoffs: tuple[int, ...] = Field(
        default=(), strict=False, description="first word of each cluster (Transformer-XL: 20,000, 40,000, 200,000)"
    )

    @model_validator(mode="after")
    def _rising(self) -> "AdaptiveConfig":
        if any(low >= high for low, high in pairwise((0, *self.cutoffs))):
            raise ValueError(f"cutoffs {list(self.cutoffs)} must be above 0 and rise")
        return self


@dataclass(frozen=True)
class Softmax:
    """Plain softmax over the logits x W."""

    weight: Float[Tensor, "vocab hidden"]

    def logits(self, x: Hidden) -> Float[Tensor, "*positions vocab"]:
        """Compute a logit for each token of the vocabulary, in full precision."""
        return F.linear(x, self.weight).to(self.weight.dtype)

    def nats(
        self, x: Hidden, targets: Int[Tensor, "*positions"], known: Int[Tensor, "*positions"] | None = None
    ) -> Float[Tensor, "*positions"]:
        """Compute the cross-entropy of each target in nats; 0 if it is UNSCORED. known: unused."""
        logits = self.logits(x).flatten(0, -2)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=UNSCORED, reduction="none").view(targets.shape)


@dataclass(frozen=True)
class AdaptiveSoftmax:
    """Adaptive softmax over given weights. `weight` is the embedding's."""

    weight: Float[Tensor, "vocab hidden"]
    bias: Float[Tensor, " vocab"]
    cluster_weight: Float[Tensor, "clusters hidden"]
    cluster_bias: Float[Tensor, " clusters"]
    cutoffs: tuple[int, ...]

    def nats(
        self, x: Hidden, targets: Int[Tensor, "*positions"], known: Int[Tensor, "*positions"] | None = None
    ) -> Float[Tensor, "*positions"]:
        """Compute the cross-entropy −ln p(target) of each position in nats; 0 if it is UNSCORED.

        known: the targets on the host, so that their device need not be asked.
        """
        # Sort on the host, and send all of it in one piece.
        sorted_targets = self._sort(targets if known is None else known)
        whole = send(torch.cat(sorted_targets), x.device)
        scored, place, *clusters = whole.split([len(part) for part in sorted_targets])

        # Each cluster reads those that are in it.
        x = x.flatten(0, -2)[scored]
        head, tails = self._head(x), []
        for (low, high), inside, word in zip(pairwise(self._edges), clusters[::2], clusters[1::2], strict=True):
            tails.append((inside, -self._tail(x[inside], low, high).gather(1, word[:, None])[:, 0]))
        nats = -head.gather(1, place[:, None])[:, 0]
        for inside, tail in tails:
            nats = nats.index_add(0, inside, tail)
        return nats.new_zeros(targets.numel()).index_copy(0, scored, nats).view(targets.shape)

    def _sort(self, targets: Int[Tensor, "*positions"]) -> list[Int[Tensor, " _"]]:
        """Sort targets: which are scored, their places in the head; then of each cluster, which are its, and words."""
        flat = targets.flatten().to(HOST)
        scored = (flat != UNSCORED).nonzero()[:, 0]
        wanted = flat[scored]
        place, clusters = wanted, []
        for i, (low, high) in enumerate(pairwise(self._edges)):
            own = (wanted >= low) & (wanted < high)
            place, inside = torch.where(own, self._edges[0] + i, place), own.nonzero()[:, 0]
            clusters += [inside, wanted[inside] - low]
        return [scored, place, *clusters]

    def logits(self, x: Hidden) -> Float[Tensor, "*positions vocab"]:
        """Compute ln p of every token of the vocabulary: for inspection and generation, not for training."""
        head = self._head(x)
        parts = [head[..., : self._edges[0]]]
        for i, (low, high) in enumerate(pairwise(self._edges)):
            parts.append(head[..., self._edges[0] + i, None] + self._tail(x, low, high))
        return torch.cat(parts, -1)

    @property
    def _edges(self) -> tuple[int, ...]:
        """The ends of the shortlist and of each cluster."""
        return *self.cutoffs, len(self.weight)

    def _head(self, x: Hidden) -> Float[Tensor, "*positions places"]:
        """Compute log-probabilities of the shortlist's words and of the clusters."""
        weight = torch.cat([self.weight[: self._edges[0]], self.cluster_weight])
        bias = torch.cat([self.bias[: self._edges[0]], self.cluster_bias])
        return F.linear(x, weight, bias).to(self.bias.dtype).log_softmax(-1)

    def _tail(self, x: Hidden, low: int, high: int) -> Float[Tensor, "*positions words"]:
        """Compute log-probabilities of a cluster's words, given the cluster."""
        return F.linear(x, self.weight[low:high], self.bias[low:high]).to(self.bias.dtype).log_softmax(-1)


class TiedOutput(nn.Module):
    """Biases of words, vectors and biases of clusters, for an adaptive softmax. UsageError if a cutoff is too high."""

    def __init__(self, config: AdaptiveConfig, hidden_size: int, vocab_size: int) -> None:
        super().__init__()
        if config.cutoffs and config.cutoffs[-1] >= vocab_size:
            cuts = list(config.cutoffs)
            raise UsageError(f"model.adaptive: the last of the cutoffs {cuts} is not below the {vocab_size} words")
        self.cutoffs = config.cutoffs
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.cluster_weight = nn.Parameter(torch.zeros(len(config.cutoffs), hidden_size))
        self.cluster_bias = nn.Parameter(torch.zeros(len(config.cutoffs)))

    def softmax(self, embedding: Float[Tensor, "vocab hidden"]) -> AdaptiveSoftmax:
        """Make the adaptive softmax over the embedding's weights."""
        return AdaptiveSoftmax(embedding, self.bias, self.cluster_weight, self.cluster_bias, self.cutoffs)
