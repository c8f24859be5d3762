"""The papers' optimizers on lists of float64 arrays. A weight with at most one axis is a bias or a normalisation parameter, and spared."""

import numpy as np


def _decayed(weight, gradient, l2):
    return gradient + l2 * weight if weight.ndim > 1 else gradient


def lars(weights, gradients_by_step, rates, momentum=0.9, l2=0.0, eta=1e-3):
    """deepmind-research `byol/utils/optimizers.py`: decay, then trust ratio, then momentum, then the learning rate."""
    weights = [np.array(w, np.float64) for w in weights]
    heaps = [np.zeros_like(w) for w in weights]
    for gradients, rate in zip(gradients_by_step, rates, strict=True):
        for index, gradient in enumerate(gradients):
            weight = weights[index]
            gradient = _decayed(weight, np.asarray(gradient, np.float64), l2)
            if weight.ndim > 1:
                weight_norm, gradient_norm = np.sqrt((weight**2).sum()), np.sqrt((gradient**2).sum())
                if weight_norm > 0.0 and gradient_norm > 0.0:
                    gradient = gradient * (eta * weight_norm / gradient_norm)
            heaps[index] = momentum * heaps[index] + gradient
            weights[index] = weight - rate * heaps[index]
    return weights


def sgd(weights, gradients_by_step, rates, momentum=0.9, l2=0.0):
    weights = [np.array(w, np.float64) for w in weights]
    heaps = [np.zeros_like(w) for w in weights]
    for gradients, rate in zip(gradients_by_step, rates, strict=True):
        for index, gradient in enumerate(gradients):
            heaps[index] = momentum * heaps[index] + _decayed(weights[index], np.asarray(gradient, np.float64), l2)
            weights[index] = weights[index] - rate * heaps[index]
    return weights


def adam(weights, gradients_by_step, rates, beta_1=0.9, beta_2=0.999, epsilon=1e-7, l2=0.0):
    """Kingma and Ba 2015, in the order of the end of section 2 (epsilon is then "epsilon hat"), which Keras follows."""
    weights = [np.array(w, np.float64) for w in weights]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    for step, (gradients, rate) in enumerate(zip(gradients_by_step, rates, strict=True), start=1):
        for index, gradient in enumerate(gradients):
            gradient = _decayed(weights[index], np.asarray(gradient, np.float64), l2)
            first[index] = beta_1 * first[index] + (1.0 - beta_1) * gradient
            second[index] = beta_2 * second[index] + (1.0 - beta_2) * gradient**2
            corrected = rate * np.sqrt(1.0 - beta_2**step) / (1.0 - beta_1**step)
            weights[index] = weights[index] - corrected * first[index] / (np.sqrt(second[index]) + epsilon)
    return weights


def warmup_cosine(step, peak, total_steps, warmup_steps):
    """Linear from 0 to the peak, then half a cosine down to 0."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * np.cos(np.pi / 2.0 * min((step - warmup_steps) / (total_steps - warmup_steps), 1.0)) ** 2
