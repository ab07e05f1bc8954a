"""The metrics that bnstudy itself records; all others come from probes of the user's own.

Probes are torch code, which a report does not import, so their metrics are listed here.
"""

from __future__ import annotations

import pandas as pd

from bnstudy.store.thin import MEAN, SUM

EVALUATION = ("loss", "accuracy", "balanced_accuracy", "lr", MEAN, SUM)
PROBES = (
    "accuracy_batch", "accuracy_precise", "accuracy_running", "backprop_ratio", "backprop_rms", "backprop_slope",
    "beta_eff", "beta_eff_scaled", "beta_mean", "beta_std", "born_dead_share", "dead_share", "died_share",
    "effective_lr", "effective_rank", "gamma_mean", "gamma_min", "gamma_std", "grad_change_max",
    "grad_change_max_scaled", "grad_change_min", "grad_change_min_scaled", "grad_norm", "grad_weight_product",
    "ics_cosine", "ics_norm", "ics_relative", "init_distance", "loss_batch", "loss_max", "loss_max_scaled", "loss_min",
    "loss_min_scaled", "loss_precise", "loss_running", "lr_sharpness", "network_dead", "revived_share",
    "running_mean_distance", "running_var_distance", "saturated_share", "sharpness", "sharpness_magnitude",
    "sharpness_residual", "train_accuracy", "train_loss", "unit_q15", "unit_q50", "unit_q85", "update_ratio",
    "weight_norm", "z_drift", "z_drift_relative", "z_mean", "z_q15", "z_q50", "z_q85", "z_std",
)  # fmt: skip


def own_metrics(metrics: pd.DataFrame) -> list[str]:
    """The names of the recorded metrics that bnstudy does not record, by letters."""
    return sorted({*metrics["metric"].unique().astype(str)} - {*EVALUATION, *PROBES})
