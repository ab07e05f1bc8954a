from __future__ import annotations

import pytest

from bnstudy.store.runs import Store
from tests.commands.conftest import FINISHED, SHARED
from tests.conftest import Command
from tests.synthetic import Run


@pytest.mark.usefixtures("store")
def test_only_the_settings_that_differ_are_listed(command: Command):
    status, out, err = command("diff", FINISHED[0].run_id[:8], FINISHED[3].run_id[:8])
    assert (status, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["setting", FINISHED[0].run_id, FINISHED[3].run_id], ["lr", "0.1", "1"], ["seed", "0", "1"],
    ]  # fmt: skip


@pytest.mark.usefixtures("store")
def test_fields_that_one_class_lacks_have_a_dash(command: Command):
    out = command("diff", FINISHED[0].run_id, FINISHED[4].run_id)[1]
    rows = [line.split() for line in out.splitlines()]
    assert ["norm", "NoNorm", "BatchNorm"] in rows
    assert ["norm.eps", "-", "1e-05"] in rows
    assert "_target_" not in out


def test_a_probe_that_one_run_lacks_is_one_line(command: Command, store: Store):
    other = Run(total=40, probed="weights")
    store.begin(other.run_id, other.spec)
    rows = [line.split() for line in command("diff", SHARED, other.run_id)[1].splitlines()[1:]]
    assert rows == [["probe.gradients", "Gradients", "-"], ["probe.weights", "-", "Gradients"]]


@pytest.mark.usefixtures("store")
def test_a_run_does_not_differ_from_itself(command: Command):
    assert command("diff", SHARED, SHARED[:5])[:2] == (0, f"Both are run {SHARED}.\n")


def test_a_run_without_a_readable_configuration_is_named(command: Command, store: Store):
    store.run(SHARED).config.unlink()
    status, _, err = command("diff", SHARED, FINISHED[1].run_id)
    assert (status, "config.yaml: it is missing" in err) == (2, True)
