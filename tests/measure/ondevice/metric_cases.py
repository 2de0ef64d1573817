"""Metrics over data sets on some data, and the same from the libraries that everyone uses."""

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, jaccard_score, roc_auc_score


def classes(n=400, count=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, count, n)
    outputs = rng.normal(size=(n, count)).astype(np.float32)
    outputs[np.arange(n), labels] += 1.0
    return outputs, labels


def several(n=400, count=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, count)) < 0.3).astype(float)
    # Rounded, so that there are ties.
    return np.round(rng.normal(size=(n, count)) + labels, 1), labels


def numbers(n=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=(n, 2))
    return np.round(labels + rng.normal(size=(n, 2)), 1), labels


def _probabilities(outputs):
    powers = np.exp(outputs.astype(float))
    return powers / powers.sum(1, keepdims=True)


def _spearman(outputs, labels):
    return np.mean([spearmanr(outputs[:, k], labels[:, k])[0] for k in range(outputs.shape[1])])


CASES = {
    "f1 of classes": ("f1", classes, lambda o, y: f1_score(y, o.argmax(1), average="macro")),
    "f1 of several": ("f1", several, lambda o, y: f1_score(y, o > 0, average="macro")),
    "iou of classes": (
        "mean-iou",
        classes,
        lambda o, y: jaccard_score(y, o.argmax(1), average="macro"),
    ),
    "iou of several": ("mean-iou", several, lambda o, y: jaccard_score(y, o > 0, average="macro")),
    "auroc of classes": (
        "auroc",
        classes,
        lambda o, y: roc_auc_score(y, _probabilities(o), multi_class="ovr"),
    ),
    "auroc of several": ("auroc", several, lambda o, y: roc_auc_score(y, o)),
    "spearman": ("spearman", numbers, _spearman),
}
