"""The sorting step written plainly, from the equations alone: another way to the decoder's numbers.

Everything is made in full, in one loop over segments, with no block, no kept key and no shortcut. It knows nothing of
`infty`, and keeps the contract of a yardstick: `infty bench step --against tests/plain_model.py`.

Sizes: b batch, t tokens, k keys, h heads, d head size, n basis functions, m samples.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONTRACTION, RIDGE, PRIOR, FLOOR = 0.75, 1.0, 0.05, 1e-6
WIDTHS = (0.01, 0.05)
SAMPLES = 512  # M at the paper's sizes; smaller models take as many as they have basis functions
MASKED = -100


class LiteralMemory(nn.Module):
    """Gate, fit or contract-append-refit, and read: B = G [X(s); x], z = V E_p[psi]."""

    def __init__(self, hidden: int, heads: int, basis: int, length: int) -> None:
        super().__init__()
        self.heads, self.length, self.samples = heads, length, min(SAMPLES, basis)
        self.gate = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.key, self.value, self.output = (nn.Linear(hidden, hidden, bias=False) for _ in range(3))
        self.mean, self.variance = (nn.Linear(basis, 1, bias=False) for _ in range(2))
        exact: dict[str, Any] = {"dtype": torch.float64}
        self.centers = torch.linspace(0, 1, basis // 2, **exact)[:, None].expand(-1, 2).flatten()
        self.widths = torch.tensor(WIDTHS, **exact).repeat(basis // 2)
        cells, half = (torch.arange(length, **exact) + 0.5) / length, length // 2
        self.fit = self.ridge(cells, torch.cat([-cells[:half], 1 + cells[:half]]))
        self.points = torch.arange(1, self.samples + 1, **exact) / self.samples
        new = torch.arange(1, length + 1, **exact) / length
        inside = torch.cat([CONTRACTION * self.points, CONTRACTION + (1 - CONTRACTION) * new])
        shift = 1 / (2 * length + self.samples)
        around = torch.linspace(-0.5 + shift, 1.5 - shift, 2 * len(inside), **exact)
        self.refit = self.ridge(inside, around[(around < 0) | (around > 1)])

    def psi(self, positions: Tensor) -> Tensor:
        """positions, n."""
        deviation = (positions[:, None] - self.centers) / self.widths
        return torch.exp(-(deviation**2) / 2) / (self.widths * math.sqrt(2 * math.pi))

    def ridge(self, inside: Tensor, margin: Tensor) -> Tensor:
        """n, inside."""
        design = self.psi(torch.cat([inside, margin])).T
        gram = design @ design.T + RIDGE * torch.eye(len(design), dtype=design.dtype)
        return torch.linalg.solve(gram, design[:, : len(inside)])

    def forward(self, evicted: Tensor, queries: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Context, KL, and the new coefficients without their graph."""
        x = torch.sigmoid(self.gate(evicted.mT)).mT * evicted
        if past is None:
            b = self.fit.to(x) @ x
        else:
            b = self.refit.to(x) @ torch.cat([self.psi(self.points).to(x) @ past, x], 1)
        key, value, q = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.key(b), self.value(b), queries)
        )
        scores = q @ key.mT / math.sqrt(q.shape[-1])  # b h t n
        mean, variance = torch.sigmoid(self.mean(scores)), F.softplus(self.variance(scores)).clamp(min=FLOOR)
        spread = variance + self.widths.to(x) ** 2
        expected = torch.exp(-((mean - self.centers.to(x)) ** 2) / (2 * spread)) / torch.sqrt(2 * math.pi * spread)
        context = self.output((expected @ value).transpose(1, 2).flatten(2))
        ratio = variance / PRIOR**2
        return context, ((ratio - torch.log(ratio) - 1) / 2).mean(), b.detach()


class _Layer(nn.Module):
    def __init__(self, hidden: int, heads: int, inner: int, basis: int, length: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.position, self.output = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        first, second = nn.Linear(hidden, inner), nn.Linear(inner, hidden)
        self.feed_forward = nn.Sequential(first, nn.ReLU(), nn.Dropout(dropout), second, nn.Dropout(dropout))
        self.memory = LiteralMemory(hidden, heads, basis, length)

    def forward(self, x: Tensor, cached: Tensor, far: Tensor, past: Any, r: Tensor, u: Tensor, v: Tensor) -> Any:
        """Output, KL, and coefficients. Distances are looked up one by one."""
        seen = torch.cat([cached, x], 1)
        t, k = x.shape[1], seen.shape[1]
        query, key, value = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(seen).chunk(3, -1))
        queries = self.qkv(x).chunk(3, -1)[0]
        query = query[:, :, -t:]
        distance = torch.arange(k - t, k)[:, None] - torch.arange(k)
        by_distance = self.position(r).unflatten(-1, (self.heads, -1)).transpose(0, 1)  # h k d
        position = (query + v[:, None]) @ by_distance.mT  # b h t, distance
        position = position.gather(-1, distance.clamp(min=0).expand(position.shape))
        scores = ((query + u[:, None]) @ key.mT + position) / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(distance < 0, -torch.inf).softmax(-1)
        context, kl = self.output((weights @ value).transpose(1, 2).flatten(2)), x.new_zeros(())
        if far.shape[1]:
            read, kl, past = self.memory(far, queries, past)
            context = context + read
        x = self.norm1(x + context)
        return self.norm2(x + self.feed_forward(x)), kl, past


class LiteralModel(nn.Module):
    """The whole decoder with a short-term memory of one segment."""

    def __init__(
        self, vocab: int, layers: int, hidden: int, heads: int, inner: int, basis: int, segment: int, dropout: float
    ) -> None:
        super().__init__()
        self.hidden, self.segment = hidden, segment
        self.embedding, self.output = nn.Embedding(vocab, hidden), nn.Linear(hidden, vocab, bias=False)
        self.layers = nn.ModuleList(_Layer(hidden, heads, inner, basis, segment, dropout) for _ in range(layers))
        self.content_bias, self.position_bias = (
            nn.Parameter(torch.randn(heads, hidden // heads) * 0.02) for _ in range(2)
        )
        self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, cached: list[Tensor], far: list[Tensor], pasts: list[Any]) -> Any:
        """Logits, the layers' inputs, coefficients, and the sum of their KL."""
        x = self.dropout(self.embedding(tokens) * math.sqrt(self.hidden))
        angles = torch.arange(tokens.shape[1] + cached[0].shape[1])[:, None] / 10_000 ** (
            torch.arange(0, self.hidden, 2, dtype=torch.float64) / self.hidden
        )
        r = torch.cat([angles.sin(), angles.cos()], -1).to(x)  # by rising distance
        inputs, kls = [], []
        for i, layer in enumerate(self.layers):
            inputs.append(x.detach())
            x, kl, pasts[i] = layer(x, cached[i], far[i], pasts[i], r, self.content_bias, self.position_bias)
            kls.append(kl)
        return self.output(x), inputs, pasts, torch.stack(kls).sum()


def step(
    model: LiteralModel, optimizer: torch.optim.Optimizer, tokens: Tensor, length: int, kl_weight: float = 1e-6
) -> float:
    """One step: only the last segment carries a gradient; clipped at 0.25. Returns the loss."""
    optimizer.zero_grad()
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[:, :length] = MASKED
    nothing = model.content_bias.new_zeros(len(tokens), 0, model.hidden)
    history: list[list[Tensor]] = []
    pasts: list[Any] = [None] * len(model.layers)
    pieces = list(zip(inputs.split(model.segment, 1), targets.split(model.segment, 1), strict=True))
    logits = kl = torch.zeros(())
    for i, (piece, _) in enumerate(pieces):
        cached = history[i - 1] if i > 0 else [nothing] * len(model.layers)
        far = history[i - 2] if i > 1 else [nothing] * len(model.layers)
        with torch.set_grad_enabled(i == len(pieces) - 1):
            logits, states, pasts, kl = model(piece, cached, far, pasts)
        history.append(states)
    loss = F.cross_entropy(logits.flatten(0, 1), pieces[-1][1].flatten(), ignore_index=MASKED)
    (loss + kl_weight * kl).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
    optimizer.step()
    return loss.item()
