"""The losses as their papers write them: float64, one term a pair or triplet, no care for speed or memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def distance(s_a: Tensor, u_a: Tensor | None, s_b: Tensor, u_b: Tensor | None, tau: float = 5.0) -> Tensor:
    """D_ij, differentiable away from coinciding embeddings; the diagonal of a set with itself is 0."""
    alpha = (s_a[:, None] - s_b[None]).square().sum(2).clamp_min(1e-300).sqrt()
    if u_a is None:
        return alpha
    beta = (u_a[:, None] + (0 if u_b is None else u_b[None])).expand(*alpha.shape, -1).norm(dim=2)
    return alpha * torch.exp(-beta / (tau * alpha))


def mean(terms: list[Tensor], nothing: Tensor) -> Tensor:
    return torch.stack(terms).mean() if terms else nothing.sum() * 0


def contrastive(D: Tensor, y: list[int], pos_margin: float = 0.0, neg_margin: float = 0.5) -> Tensor:
    pairs = [(i, j) for i in range(len(y)) for j in range(len(y)) if i != j]
    pull = [D[i, j] - pos_margin for i, j in pairs if y[i] == y[j] and D[i, j] > pos_margin]
    push = [neg_margin - D[i, j] for i, j in pairs if y[i] != y[j] and D[i, j] < neg_margin]
    return mean(pull, D) + mean(push, D)


def triplet_semihard(D: Tensor, y: list[int], margin: float = 0.1) -> Tensor:
    n = range(len(y))
    triplets = [(a, p, q) for a in n for p in n for q in n if a != p and y[a] == y[p] and y[a] != y[q]]
    return mean([D[a, p] - D[a, q] + margin for a, p, q in triplets if 0 < D[a, q] - D[a, p] < margin], D)


def margin_dw(
    D: Tensor, triplets: list[tuple[int, int, int]], beta: Tensor, margin: float = 0.2, nu: float = 0.0
) -> Tensor:
    terms = [D[a, p] - beta + margin for a, p, _ in triplets] + [beta - D[a, n] + margin for a, _, n in triplets]
    return mean([term for term in terms if term > 0], D) + nu * beta


def multi_similarity(
    D: Tensor, y: list[int], alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float = 0.1
) -> Tensor:
    S = 1 - D.square() / 2
    terms = [D.sum() * 0]
    for i in range(len(y)):
        positives = [S[i, j] for j in range(len(y)) if i != j and y[i] == y[j]]
        negatives = [S[i, j] for j in range(len(y)) if y[i] != y[j]]
        if positives and negatives:
            pull = [torch.exp(-alpha * (s - base)) for s in positives if s - epsilon < max(negatives)]
            push = [torch.exp(beta * (s - base)) for s in negatives if s + epsilon > min(positives)]
            terms += [torch.log1p(torch.stack(x).sum()) / a for x, a in ((pull, alpha), (push, beta)) if x]
    return torch.stack(terms).sum() / len(y)


def fast_ap(D: Tensor, y: list[int], bins: int = 10) -> Tensor:
    width = 4 / bins
    terms = []
    for i in range(len(y)):
        others = [j for j in range(len(y)) if j != i]
        if not any(y[j] == y[i] for j in others):
            continue
        wanted, found, all_so_far, positive_so_far = 0, D.sum() * 0, 0.0, 0.0
        wanted = sum(y[j] == y[i] for j in others)
        for k in range(bins + 1):
            shares = {j: (1 - (D[i, j].square() - k * width).abs() / width).clamp_min(0) for j in others}
            here = sum((shares[j] for j in others if y[j] == y[i]), D.sum() * 0)
            all_so_far = all_so_far + sum(shares.values())
            positive_so_far = positive_so_far + here
            if all_so_far > 0:
                found = found + here * positive_so_far / all_so_far
        terms.append(1 - found / wanted)
    return mean(terms, D)


def proxy_nca(D: Tensor, y: list[int], scale: float = 32.0) -> Tensor:
    return -torch.log_softmax(-scale * D.square(), 1)[range(len(y)), y].mean()


def proxy_anchor(S: Tensor, y: list[int], margin: float = 0.1, alpha: float = 32.0) -> Tensor:
    """The authors' formula on the similarities S to the proxies, exponentials and logarithms as they stand."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(y), S.shape[1]).bool()
    pull = torch.where(one_hot, torch.exp(-alpha * (S - margin)), 0).sum(0)
    push = torch.where(one_hot, 0, torch.exp(alpha * (S + margin))).sum(0)
    return torch.log(1 + pull).sum() / one_hot.any(0).sum() + torch.log(1 + push).mean()


def released_similarity(s: Tensor, u: Tensor, proxies: Tensor) -> Tensor:
    """The similarity of the authors' released retrieval code."""
    apart = (s[:, None] - proxies[None]).square().sum(2)
    return 1 - (1 - s @ normalize(proxies).mT) * torch.exp(-(u.square().sum(1, keepdim=True) + 4) / (5 * apart))
