"""Distillation losses: functions of what the student and the teacher say about the same batch.

One file per family. Every function takes tensors with samples on axis 0, averages over samples, and
gives a scalar; its docstring has the paper and says where this differs from the authors' code.
"""

from __future__ import annotations

from compress.distillation.functions.adversarial import hinge_discriminator, hinge_generator
from compress.distillation.functions.contrastive import crd
from compress.distillation.functions.feature import attention_maps, attention_transfer, hidden, hint
from compress.distillation.functions.image import l1, perceptual, ssim
from compress.distillation.functions.relation import pkt, rkd_angle, rkd_distance, similarity
from compress.distillation.functions.response import (
    binary_kl,
    dist,
    dkd,
    hard,
    logits_mse,
    response,
    topk_kl,
)
from compress.distillation.functions.sequence import gkd, sequence

__all__ = [
    "attention_maps",
    "attention_transfer",
    "binary_kl",
    "crd",
    "dist",
    "dkd",
    "gkd",
    "hard",
    "hidden",
    "hinge_discriminator",
    "hinge_generator",
    "hint",
    "l1",
    "logits_mse",
    "perceptual",
    "pkt",
    "response",
    "rkd_angle",
    "rkd_distance",
    "sequence",
    "similarity",
    "ssim",
    "topk_kl",
]
