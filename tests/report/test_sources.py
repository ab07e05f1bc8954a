from __future__ import annotations

import pytest

from bnstudy.report.sources import link_source


def link(target: str, text: str) -> str:
    return f'<a href="{target}" rel="noreferrer">{text}</a>'


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("folklore", "folklore"),
        ("He 2016, arXiv:1512.03385.", f"He 2016, {link('https://arxiv.org/abs/1512.03385', 'arXiv:1512.03385')}."),
        ("(doi:10.1109/x.5; b)", f"({link('https://doi.org/10.1109/x.5', 'doi:10.1109/x.5')}; b)"),
        ("see https://a.org/b?c=1&d=2.", f"see {link('https://a.org/b?c=1&amp;d=2', 'https://a.org/b?c=1&amp;d=2')}."),
        ("arXiv:hep-th/9901001", link("https://arxiv.org/abs/hep-th/9901001", "arXiv:hep-th/9901001")),
    ],
)
def test_dois_arxiv_numbers_and_addresses_are_links(source: str, shown: str) -> None:
    assert link_source(source) == shown


@pytest.mark.parametrize(
    "source",
    ["javascript:alert(1)", "<b>x</b>", "ftp://a", "data:text/html,x", "doi:11.1/x", "arXiv:12", "[a](https:x)"],
)
def test_anything_else_is_text(source: str) -> None:
    assert "<a" not in link_source(source)
    assert "<b" not in link_source(source)


def test_an_address_cannot_leave_its_attribute() -> None:
    shown = link_source('https://a.org/"onclick="alert(1) https://b.org/<script>')
    assert shown.count("<a ") == 2
    assert "<script" not in shown
    assert 'onclick="' not in shown
