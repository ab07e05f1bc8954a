from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bnstudy.config.folders import check_folder, count_nodes
from bnstudy.validation import ConfigError


def bomb(levels: int) -> str:
    """Nine aliases a level: 9 ** levels values."""
    lists = [f"l{i}: &l{i} [{', '.join(f'*l{i - 1}' for _ in range(9))}]" for i in range(1, levels)]
    return "\n".join(["l0: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1]", *lists])


def count_naively(value: object) -> int:
    """The nodes of a loaded value, every alias walked through."""
    if isinstance(value, dict):
        return 1 + sum(1 + count_naively(v) for v in value.values())
    return 1 + sum(map(count_naively, value)) if isinstance(value, list) else 1


@pytest.mark.parametrize("text", [bomb(3), "a: &a {x: 1, y: [2, 3]}\nb: *a\nc: [*a, *a]", "a: 1", "[]", "text"])
def test_nodes_are_counted_with_each_alias_written_out(text: str) -> None:
    assert count_nodes(yaml.compose(text, yaml.SafeLoader), {}) == count_naively(yaml.safe_load(text))


def test_a_node_that_holds_itself_has_no_end() -> None:
    assert count_nodes(yaml.compose("a: &a [1, *a]", yaml.SafeLoader), {}) == float("inf")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("norm/bomb.yaml", bomb(12).encode(), "norm/bomb.yaml is not allowed: its aliases stand for more than 100000"),
        ("bomb.yaml", b"a: &a [*a]", "bomb.yaml is not allowed: its aliases stand for more than 100000 values."),
        ("hydra/launcher/latin.yaml", "name: Müller".encode("latin-1"), "latin.yaml cannot be read: 'utf-8' codec"),
    ],
)
def test_a_file_that_hydra_could_not_read_is_refused(tmp_path: Path, name, content, sentence) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        check_folder("--config-dir", str(tmp_path))


def test_ordinary_aliases_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\n")
    check_folder("--config-dir", str(tmp_path))


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="claims=nowhere is not allowed"):
        check_folder("claims", "nowhere")
