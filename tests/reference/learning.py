"""What BYOL, SimSiam and SimCLR compare and how BYOL's target follows (BYOL paper, sections 3.1 to
3.3 and equation 8; SimSiam report, section IV)."""

import numpy as np


def normalized(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.sqrt(np.maximum((vectors**2).sum(axis=-1, keepdims=True), 1e-12))


def regression_loss(prediction, projection):
    """For each row |p|^2 + |z|^2 - 2 p z of the normalised vectors: 2 - 2 cos, and 1 where one of
    them is zero."""
    p, z = normalized(prediction), normalized(projection)
    return (p * p).sum(axis=-1) + (z * z).sum(axis=-1) - 2.0 * (p * z).sum(axis=-1)


def byol_loss(predictions, target_projections):
    """Both directions added, mean over the batch; each argument is (of view 1, of view 2)."""
    directions = regression_loss(predictions[0], target_projections[1]) + regression_loss(
        predictions[1], target_projections[0]
    )
    return directions.mean()


def cross_entropy(prediction, projection):
    """For each row the expected number of nats to say what softmax(projection) draws, in
    softmax(prediction)'s code."""
    p, z = (np.asarray(x, np.float64) for x in (prediction, projection))
    weights = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    return (weights * (np.log(np.exp(p).sum(axis=-1, keepdims=True)) - p)).sum(axis=-1)


def info_nce(phi, psi, alpha, beta):
    """The BYOL paper's InfoNCE with alpha and beta, term by term as it is printed, to be maximised.

    `phi` and `psi` are each (of views v, of views v'), before normalisation: S(v_i, v'_j) is the
    cosine of phi(v_i) and psi(v'_j).
    """
    phi, (psi, psi_other) = normalized(phi[0]), (normalized(x) for x in psi)
    count = len(phi)
    positive = sum(phi[i] @ psi_other[i] for i in range(count))
    negative = 0.0
    for i in range(count):
        inner = sum(np.exp(phi[i] @ psi[j] / alpha) for j in range(count) if j != i)
        negative += np.log(inner + sum(np.exp(phi[i] @ psi_other[j] / alpha) for j in range(count)))
    return 2.0 / count * positive - beta * 2.0 * alpha / count * negative


def nt_xent(first, second, temperature):
    """SimCLR's loss: over all 2 N views, -log of the softmax over the other 2 N - 1, mean (Chen et
    al. 2020, equation 1)."""
    views = normalized(np.concatenate([first, second]))
    count = len(first)
    losses = []
    for i in range(2 * count):
        logits = [views[i] @ views[k] / temperature for k in range(2 * count) if k != i]
        losses.append(
            np.log(np.exp(logits).sum()) - views[i] @ views[(i + count) % (2 * count)] / temperature
        )
    return np.mean(losses)


def spread(vectors):
    vectors = normalized(vectors)
    return vectors.std(axis=0).mean() * np.sqrt(vectors.shape[1])


def mean_cosine(vectors):
    """Over all ordered pairs of different rows."""
    cosines = normalized(vectors) @ normalized(vectors).T
    return cosines[~np.eye(len(cosines), dtype=bool)].mean()


def cosine_tau(step, total_steps, base, end=1.0):
    if end == 1.0:
        return (
            1.0 - (1.0 - base) * (np.cos(np.pi * step / total_steps) + 1.0) / 2.0
        )  # the paper's own form
    return base + (end - base) * np.sin(np.pi / 2.0 * step / total_steps) ** 2


def followed(target, online, tau):
    """The paper's xi <- tau xi + (1 - tau) theta."""
    return tau * target + (1.0 - tau) * online


def simclr_code_loss(first, second, temperature):
    """The loss of SimCLR's code (google-research/simclr `tf2/objective.py`, `add_contrastive_loss`):
    cross-entropies of both views, each over 2 N logits of which its own is -1e9, added."""
    a, b = normalized(first), normalized(second)
    count = len(a)

    def cross_entropy(view, other):
        same = view @ view.T / temperature - 1e9 * np.eye(count)
        logits = np.concatenate([view @ other.T / temperature, same], axis=1)
        largest = logits.max(axis=1, keepdims=True)
        normalizer = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
        return normalizer - np.diag(logits[:, :count])

    return float(np.mean(cross_entropy(a, b) + cross_entropy(b, a)))
