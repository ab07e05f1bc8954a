from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from bnstudy.data.torchvision_sets import CIFAR10, CIFAR100, MNIST, FashionMNIST
from bnstudy.validation import ConfigError
from tests.conftest import CPU

Serve = Callable[[Path], str]


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


def idx_files(train: int = 30, test: int = 10) -> dict[str, bytes]:
    """The content of the four files of a tiny MNIST, by name."""
    rng = np.random.default_rng(0)
    files = {}
    for part, n in (("train", train), ("t10k", test)):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, 28, 28)))
        files[f"{part}-labels-idx1-ubyte"] = idx(np.arange(n) % 10)
    return files


def write_files(root: Path, files: dict[str, bytes], folder: str = "MNIST/raw") -> Path:
    (root / folder).mkdir(parents=True)
    for name, content in files.items():
        (root / folder / name).write_bytes(content)
    return root


@pytest.fixture
def tiny_mnist(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of a tiny MNIST, whose MD5 are accepted as MNIST's."""
    files = idx_files()
    monkeypatch.setattr(MNIST, "md5", {name: md5(content) for name, content in files.items()})
    return files


@pytest.fixture
def mirror(tmp_path: Path, tiny_mnist: dict[str, bytes], serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder from which torchvision downloads the tiny MNIST."""
    folder = tmp_path / "mirror"
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(folder)])
    archives = {f"{name}.gz": gzip.compress(content) for name, content in tiny_mnist.items()}
    for name, content in archives.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(datasets.MNIST, "resources", [(n, md5(c)) for n, c in archives.items()])
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every download fail: nothing listens at the URLs."""
    for dataset in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(dataset, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_mnist_equals_that_of_torchvision(real_mnist, tmp_path):
    spec = MNIST(root=str(real_mnist))
    spec.source()
    decoded = spec.decode()
    for train, x, y in ((True, decoded.train_x, decoded.train_y), (False, decoded.test_x, decoded.test_y)):
        original = datasets.MNIST(real_mnist, train=train)
        assert torch.equal(x.squeeze(1), original.data)
        assert torch.equal(y, original.targets)

    data = spec.load(tmp_path, CPU)
    assert (data.name, data.classes, data.shape) == ("MNIST", 10, (1, 28, 28))
    assert [len(s) for s in (data.train, data.val, data.test)] == [54_000, 6_000, 10_000]
    assert data.checksum == decoded.checksum
    assert data.mean[0] == pytest.approx(0.1307, abs=5e-4)
    assert data.std[0] == pytest.approx(0.3081, abs=5e-4)


def test_an_mnist_file_with_a_wrong_md5_is_refused(tiny_mnist, tmp_path):
    name = "t10k-images-idx3-ubyte"
    damaged = bytearray(tiny_mnist[name])
    damaged[100] ^= 1
    root = write_files(tmp_path, {**tiny_mnist, name: bytes(damaged)})
    with pytest.raises(
        ConfigError, match=rf"{root}/MNIST/raw/{name} is damaged: delete {root}/MNIST/raw and run the command again"
    ):
        MNIST(root=str(root)).load(tmp_path / "cache", CPU)


def test_a_file_damaged_after_it_was_cached_is_refused(tiny_mnist, tmp_path):
    spec = MNIST(root=str(write_files(tmp_path, tiny_mnist)))
    spec.load(tmp_path / "cache", CPU)
    (spec.raw_folder / "train-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(ConfigError, match="train-labels-idx1-ubyte is damaged"):
        spec.load(tmp_path / "cache", CPU)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_fashion_mnist_file_is_refused(name, monkeypatch, tmp_path):
    files = idx_files()
    monkeypatch.setattr(FashionMNIST, "md5", {name: md5(content) for name, content in files.items()})
    root = write_files(tmp_path, {**files, name: files[name][:-1]}, "FashionMNIST/raw")
    with pytest.raises(ConfigError, match=rf"FashionMNIST/raw/{name} is damaged: delete"):
        FashionMNIST(root=str(root)).load(tmp_path / "cache", CPU)


def test_the_files_of_another_dataset_are_refused_by_its_name(tiny_mnist, tmp_path):
    root = write_files(tmp_path, tiny_mnist, "FashionMNIST/raw")
    with pytest.raises(
        ConfigError, match=r"FashionMNIST/raw/\S+ is a file of MNIST: rename .* to download FashionMNIST"
    ):
        FashionMNIST(root=str(root)).load(tmp_path / "cache", CPU)


def test_two_files_of_one_dataset_under_each_others_names_are_refused(tiny_mnist, tmp_path):
    swapped = {**tiny_mnist, LABELS: tiny_mnist["t10k-labels-idx1-ubyte"]}
    with pytest.raises(ConfigError, match=rf"{LABELS} is damaged"):
        MNIST(root=str(write_files(tmp_path, swapped))).load(tmp_path / "cache", CPU)


@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST, CIFAR10, CIFAR100])
def test_every_file_of_a_published_dataset_has_a_checksum_of_its_own(dataset):
    others = {
        md5 for other in (MNIST, FashionMNIST, CIFAR10, CIFAR100) if other != dataset for md5 in other.md5.values()
    }
    assert len(set(dataset.md5.values()) - others) == len(dataset.md5)
    assert all(len(bytes.fromhex(md5)) == 16 for md5 in dataset.md5.values())


def test_real_mnist_in_the_folder_of_fashion_mnist_is_refused(real_mnist, tmp_path):
    (tmp_path / "FashionMNIST").symlink_to(real_mnist / "MNIST")
    with pytest.raises(ConfigError, match=r"train-images-idx3-ubyte is a file of MNIST"):
        FashionMNIST(root=str(tmp_path)).source()


def test_fashion_mnist_loads(monkeypatch, tmp_path):
    files = idx_files()
    monkeypatch.setattr(FashionMNIST, "md5", {name: md5(content) for name, content in files.items()})
    data = FashionMNIST(root=str(write_files(tmp_path, files, "FashionMNIST/raw"))).load(tmp_path / "cache", CPU)
    assert (data.name, data.shape) == ("FashionMNIST", (1, 28, 28))
    assert [len(s) for s in (data.train, data.val, data.test)] == [27, 3, 10]


@pytest.mark.usefixtures("mirror")
def test_missing_mnist_is_downloaded(tmp_path):
    data = MNIST(root=str(tmp_path / "new" / "root")).load(tmp_path / "cache", CPU)
    assert [len(s) for s in (data.train, data.val, data.test)] == [27, 3, 10]
    assert (tmp_path / "new" / "root" / "MNIST" / "raw" / IMAGES).is_file()


@pytest.mark.usefixtures("no_network")
def test_present_mnist_is_not_downloaded(tiny_mnist, tmp_path):
    assert len(MNIST(root=str(write_files(tmp_path, tiny_mnist))).load(tmp_path / "cache", CPU).test) == 10


def test_a_missing_file_is_downloaded_again(mirror, tmp_path):  # noqa: ARG001
    spec = MNIST(root=str(tmp_path))
    spec.load(tmp_path / "cache", CPU)
    (spec.raw_folder / LABELS).unlink()
    assert len(spec.load(tmp_path / "cache", CPU).test) == 10


def test_a_corrupted_download_is_refused(mirror, tmp_path):
    (mirror / f"{IMAGES}.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ConfigError, match=r"could not be downloaded: .*File not found or corrupted"):
        MNIST(root=str(tmp_path)).load(tmp_path / "cache", CPU)
    assert not (tmp_path / "cache").exists()
    assert os.listdir(tmp_path) == ["mirror"]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST, CIFAR10])
def test_a_failed_download_leaves_nothing_behind(dataset, tmp_path):
    for root, left in ((tmp_path / "new" / "root", []), (tmp_path / "old", ["old", "old/notes.txt"])):
        if left:
            root.mkdir()
            (root / "notes.txt").write_text("")
        with pytest.raises(ConfigError, match="could not be downloaded"):
            dataset(root=str(root)).load(tmp_path / "cache", CPU)
        assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == left


def test_an_archive_in_the_root_is_unpacked_without_a_network(mirror, tmp_path):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for archive in list(mirror.iterdir()):
        shutil.move(archive, tmp_path / "MNIST" / "raw")
    assert len(MNIST(root=str(tmp_path)).load(tmp_path / "cache", CPU).test) == 10
    assert len(list((tmp_path / "MNIST" / "raw").iterdir())) == 8


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST, CIFAR10])
def test_the_error_without_a_network_names_the_alternatives(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        dataset(root="here").load(tmp_path / "cache", CPU)
    message = str(error.value)
    assert message.startswith(
        f"{dataset.__name__} is not in {tmp_path / 'here' / dataset.below_root} and could not be downloaded: "
        "set data.root"
    )
    assert "Connection refused" in message
    assert "data.root" in message
    assert "data=digits needs no download" in message
    assert "\n" not in message


def test_the_error_for_a_root_that_cannot_be_created_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"data\.root=\S+/file/root cannot be created: Not a directory"):
        MNIST(root=str(tmp_path / "file" / "root")).load(tmp_path / "cache", CPU)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_the_error_for_a_root_that_cannot_be_written_names_it(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"data\.root=\S+ cannot be written: Permission denied"):
        MNIST(root=str(tmp_path)).load(tmp_path / "cache", CPU)


def cifar_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)

    def batch(n: int) -> bytes:
        data = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        return pickle.dumps({"data": data, "labels": [i % 10 for i in range(n)]}, protocol=2)

    meta = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    return {**{f"data_batch_{i}": batch(20) for i in range(1, 6)}, "test_batch": batch(10), "batches.meta": meta}


@pytest.fixture
def tiny_cifar(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of a tiny CIFAR-10, which torchvision can download."""
    files = cifar_files()
    (tmp_path / "mirror").mkdir()
    archive = tmp_path / "mirror" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    sums = {name: md5(content) for name, content in files.items()}
    meta = {**datasets.CIFAR10.meta, "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "url", serve(archive.parent) + archive.name)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive.read_bytes()))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[n, s] for n, s in sums.items() if "data" in n])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    monkeypatch.setattr(CIFAR10, "md5", sums)
    return files


def test_cifar_is_downloaded_and_decoded(tiny_cifar, tmp_path):
    spec = CIFAR10(root=str(tmp_path))
    data = spec.load(tmp_path / "cache", CPU)
    assert (data.name, data.classes, data.shape) == ("CIFAR10", 10, (3, 32, 32))
    assert [len(s) for s in (data.train, data.val, data.test)] == [90, 10, 10]
    row = pickle.loads(tiny_cifar["test_batch"])["data"][7]
    assert spec.decode().test_x[7].flatten().tolist() == row.tolist()


def test_a_cifar_file_with_a_wrong_md5_is_refused(tiny_cifar, tmp_path):
    root = write_files(tmp_path, {**tiny_cifar, "data_batch_3": b"?"}, "cifar-10-batches-py")
    with pytest.raises(ConfigError, match=r"cifar-10-batches-py/data_batch_3 is damaged: delete"):
        CIFAR10(root=str(root)).load(tmp_path / "cache", CPU)
