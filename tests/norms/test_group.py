from __future__ import annotations

import torch
import torch.nn.functional as F

from bnstudy.norms.group import GroupNorm, InstanceNorm, LayerNorm

X = torch.randn(6, 8, 5, 5, generator=torch.Generator().manual_seed(0))


def test_layer_norm_normalizes_over_all_features_of_a_sample():
    torch.testing.assert_close(LayerNorm().build(8, spatial=True)(X), F.layer_norm(X, X.shape[1:]))
    flat = X[:, :, 0, 0]
    torch.testing.assert_close(LayerNorm().build(8, spatial=False)(flat), F.layer_norm(flat, (8,)))


def test_group_norm_with_one_group_is_layer_norm_and_with_all_groups_instance_norm():
    torch.testing.assert_close(GroupNorm(groups=1).build(8, spatial=True)(X), LayerNorm().build(8, spatial=True)(X))
    torch.testing.assert_close(GroupNorm(groups=8).build(8, spatial=True)(X), InstanceNorm().build(8, spatial=True)(X))
