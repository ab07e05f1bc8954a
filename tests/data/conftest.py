"""Synthetic datasets, HTTP servers for them, and the real datasets where they are present."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnstudy.data.dataset import Dataset, DecodedImages, assemble
from tests.conftest import CPU

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def real_mnist() -> Path:
    """A root that contains MNIST/raw."""
    if not (SHARED / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def real_jpegs() -> Path:
    """The archive of CIFAR-10's images as JPEG files."""
    archive = SHARED / "cifar10-jpeg.tar"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    return archive


@pytest.fixture
def decoded() -> DecodedImages:
    """40 training and 10 test images of 3x6x5 noise in two classes, every third image in the second."""
    x = torch.randint(0, 256, (50, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    y = (torch.arange(50) % 3 == 0).long()
    return DecodedImages(x[:40], y[:40], x[40:], y[40:], ("a", "b"))


@pytest.fixture
def dataset(decoded: DecodedImages) -> Dataset:
    """30 training, 10 validation and 10 test images of 3x6x5."""
    return assemble("noise", decoded, torch.arange(30), torch.arange(30, 40), CPU)


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes PNGs in torchvision's ImageFolder layout, image i of a class in the i-th size."""

    def write(
        sizes: list[tuple[int, int]] | None = None,
        parts: tuple[str, ...] = ("train", "test"),
        classes: tuple[str, ...] = ("cat", "dog"),
    ) -> Path:
        rng = np.random.default_rng(0)
        for part in parts:
            for label in classes:
                folder = tmp_path / "pets" / part / label
                folder.mkdir(parents=True)
                for i, (width, height) in enumerate(sizes or [(4, 5)] * 6):
                    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{i}.png")
        return tmp_path / "pets"

    return write


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], str]]:
    """A function that serves a folder on the loopback interface and returns its URL, which ends in a slash."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(folder: Path) -> str:
        folder.mkdir(exist_ok=True)
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
