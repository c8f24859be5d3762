"""The papers' optimizers on lists of float64 arrays. A weight with at most one axis is a bias or a
normalisation parameter, and is_excluded."""

import numpy as np


def _decayed(weight, gradient, l2):
    return gradient + l2 * weight if weight.ndim > 1 else gradient


def _norm(array):
    return np.sqrt((array**2).sum())


def lars(
    weights,
    gradients_by_step,
    rates,
    momentum=0.9,
    l2=0.0,
    eta=1e-3,
    is_excluded=(),
    epsilon=0.0,
    rate_before_momentum=False,
):
    """deepmind-research `byol/utils/optimizers.py`: decay, then trust ratio, then momentum, then
    the learning rate.

    `is_excluded` names further weights by index. The last two arguments are optax' differences.
    """
    weights = [np.array(w, np.float64) for w in weights]
    heaps = [np.zeros_like(w) for w in weights]
    for gradients, rate in zip(gradients_by_step, rates, strict=True):
        for index, gradient in enumerate(gradients):
            weight = weights[index]
            gradient = np.asarray(gradient, np.float64)
            if weight.ndim > 1 and index not in is_excluded:
                gradient = gradient + l2 * weight
                if _norm(weight) > 0.0 and _norm(gradient) > 0.0:
                    gradient = gradient * (eta * _norm(weight) / (_norm(gradient) + epsilon))
            if rate_before_momentum:
                heaps[index] = momentum * heaps[index] + rate * gradient
                weights[index] = weight - heaps[index]
            else:
                heaps[index] = momentum * heaps[index] + gradient
                weights[index] = weight - rate * heaps[index]
    return weights


def sgd(weights, gradients_by_step, rates, momentum=0.9, l2=0.0):
    weights = [np.array(w, np.float64) for w in weights]
    heaps = [np.zeros_like(w) for w in weights]
    for gradients, rate in zip(gradients_by_step, rates, strict=True):
        for index, gradient in enumerate(gradients):
            heaps[index] = momentum * heaps[index] + _decayed(
                weights[index], np.asarray(gradient, np.float64), l2
            )
            weights[index] = weights[index] - rate * heaps[index]
    return weights


def adam(weights, gradients_by_step, rates, beta_1=0.9, beta_2=0.999, epsilon=1e-7, l2=0.0):
    """Kingma and Ba 2015, in the order of the end of section 2 (epsilon is then "epsilon hat"),
    which Keras follows."""
    weights = [np.array(w, np.float64) for w in weights]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step, (gradients, rate) in enumerate(zip(gradients_by_step, rates, strict=True), start=1):
        for index, gradient in enumerate(gradients):
            gradient = _decayed(weights[index], np.asarray(gradient, np.float64), l2)
            first[index] = beta_1 * first[index] + (1.0 - beta_1) * gradient
            second[index] = beta_2 * second[index] + (1.0 - beta_2) * gradient**2
            corrected = rate * np.sqrt(1.0 - beta_2**step) / (1.0 - beta_1**step)
            weights[index] = weights[index] - corrected * first[index] / (
                np.sqrt(second[index]) + epsilon
            )
    return weights


def adamw(weights, gradients_by_step, rates, weight_decay, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Loshchilov and Hutter 2019, algorithm 2, its decay times the rate, as Keras has it."""
    weights = [np.array(w, np.float64) for w in weights]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step, (gradients, rate) in enumerate(zip(gradients_by_step, rates, strict=True), start=1):
        for index, gradient in enumerate(gradients):
            gradient = np.asarray(gradient, np.float64)
            first[index] = beta_1 * first[index] + (1.0 - beta_1) * gradient
            second[index] = beta_2 * second[index] + (1.0 - beta_2) * gradient**2
            corrected = rate * np.sqrt(1.0 - beta_2**step) / (1.0 - beta_1**step)
            decay = rate * weight_decay * weights[index] if weights[index].ndim > 1 else 0.0
            weights[index] = (
                weights[index]
                - decay
                - corrected * first[index] / (np.sqrt(second[index]) + epsilon)
            )
    return weights


def lamb(weights, gradients_by_step, rates, weight_decay, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """You et al. 2020, algorithm 2 with phi(x) = x, but the decay decoupled: before the step,
    outside the trust ratio, as Keras has it."""
    weights = [np.array(w, np.float64) for w in weights]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step, (gradients, rate) in enumerate(zip(gradients_by_step, rates, strict=True), start=1):
        for index, gradient in enumerate(gradients):
            gradient = np.asarray(gradient, np.float64)
            if weights[index].ndim > 1:
                weights[index] = weights[index] * (1.0 - rate * weight_decay)
            first[index] = beta_1 * first[index] + (1.0 - beta_1) * gradient
            second[index] = beta_2 * second[index] + (1.0 - beta_2) * gradient**2
            update = (
                first[index]
                / (1.0 - beta_1**step)
                / (np.sqrt(second[index] / (1.0 - beta_2**step)) + epsilon)
            )
            norms = _norm(weights[index]), _norm(update)
            ratio = norms[0] / norms[1] if min(norms) > 0.0 else 1.0
            weights[index] = weights[index] - rate * ratio * update
    return weights


def clipped(gradients, norm):
    """Each gradient no longer than `norm`."""
    return [gradient * min(1.0, norm / _norm(gradient)) for gradient in gradients]


def clipped_together(gradients, norm):
    """All gradients, as one vector, no longer than `norm`."""
    together = np.sqrt(sum(_norm(gradient) ** 2 for gradient in gradients))
    return [gradient * min(1.0, norm / together) for gradient in gradients]


def warmup_cosine(step, peak, total_steps, warmup_steps):
    """Linear from 0 to the peak, then half a cosine down to 0."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return (
        peak
        * np.cos(np.pi / 2.0 * min((step - warmup_steps) / (total_steps - warmup_steps), 1.0)) ** 2
    )
