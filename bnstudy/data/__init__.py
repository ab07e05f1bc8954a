"""Datasets as tensors on the device: splits, augmentation, and batches by update number."""

from bnstudy.data.augment import Draws, crop_flip, epoch_draws
from bnstudy.data.batches import BatchStack, BatchStream
from bnstudy.data.cache import Decoded
from bnstudy.data.dataset import Dataset, Split
from bnstudy.data.source import CachedData

__all__ = [
    "BatchStack",
    "BatchStream",
    "CachedData",
    "Dataset",
    "Decoded",
    "Draws",
    "Split",
    "crop_flip",
    "epoch_draws",
]
