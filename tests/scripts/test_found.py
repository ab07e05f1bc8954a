from __future__ import annotations

from collections import Counter

import pytest

from bnstudy.store.files import conf_dir
from scripts.published import found
from scripts.published.record import PUBLISHED


def test_every_claim_is_in_one_topic() -> None:
    counts = Counter(name for topic in found.load_topics() for name in topic.claims)
    assert counts == Counter(path.stem for path in (conf_dir() / "claim").glob("*.yaml"))


def test_the_page_has_the_accounts_before_anything_is_published() -> None:
    text = found.page({})
    assert [topic.title for topic in found.load_topics() if f"## {topic.title}\n" not in text] == []
    assert found.NOTHING in text
    if (found.ROOT / PUBLISHED / "packed.json").exists():
        pytest.skip("the page in docs/ is that of the published results")
    assert found.PAGE.read_text() == text
