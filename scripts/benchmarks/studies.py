"""Commands that train little: planning, many runs, recording, the quickstart, and reports on many runs."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median

from benchmarks import commands
from benchmarks.recording import time_recording
from benchmarks.table import Row, at_most, speedup
from benchmarks.workload import DIGITS, RATES, TINY, Workload, sweep_arguments
from bnstudy.store.runs import Store

TRY_OUT = ("lr=0.1", "seed=0", "steps=5")
"""One run of each arm of the quickstart."""


def planning(work: Workload) -> list[Row]:
    """Commands that train nothing: a dry run, and a sweep whose runs are finished."""
    store = work.folder / "planned"
    sweep = sweep_arguments((*TINY, "model.width=8"), RATES[:5], work.few(100, 2), store)
    torch, dry, again = [], [], []
    for _ in range(work.repeats + 1):
        work.say("planning: a dry run")
        torch.append(commands.import_torch(work.folder))
        dry.append(commands.run(*sweep, "dry_run=true", folder=work.folder).seconds)
    work.say("planning: training")
    training = commands.run(*sweep, folder=work.folder).seconds
    for _ in range(work.repeats + 1):
        work.say("planning: all finished")
        torch.append(commands.import_torch(work.folder))
        again.append(commands.run(*sweep, folder=work.folder).seconds)
    runs, imports = len(Store(store).finished()), median(torch)
    beyond = f"beyond the import of torch ({imports:.1f} s)"
    return [
        at_most(f"planning {runs} runs, {beyond}", median(dry) - imports, 1.5, digits=2, seconds=dry, torch=torch),
        at_most(
            f"{runs} finished runs again, {beyond}",
            median(again) - imports,
            1.5,
            digits=2,
            seconds=again,
            training_seconds=training,
        ),
    ]


def large(work: Workload) -> list[Row]:
    """Many planned runs, and many stacks in one worker: their memory must stay flat."""
    runs, stacks = work.few(20_000, 20), work.few(300, 2)
    sweep = sweep_arguments((*TINY, "model.width=8"), RATES[:5], runs // 10, work.folder / "many")
    work.say(f"large: planning {runs} runs")
    plan = commands.run(*sweep, "dry_run=true", "hydra.launcher.executor=inprocess", folder=work.folder)
    widths = f"model.width={','.join(str(8 + i) for i in range(stacks))}"
    sweep = ["-m", *TINY, widths, "seed=0,1", "engine=stacked", f"results_dir={work.folder / 'stacks'}"]
    work.say(f"large: {stacks} stacks")
    one = commands.run(*sweep, "hydra.launcher.executor=inprocess", "progress=false", folder=work.folder)
    return [
        at_most(f"CPU time of planning {runs} runs", plan.cpu, 22, **asdict(plan)),
        at_most("memory of that command", plan.resident / 2**20, 812, "MiB", 0),
        at_most(f"memory of {stacks} stacks in one worker", one.resident / 2**20, 700, "MiB", 0, **asdict(one)),
    ]


def recording(work: Workload) -> list[Row]:
    """Measuring and storing, in this process."""
    steps, runs = work.few(2000, 5), work.few(32, 3)
    work.say(f"recording: {runs} runs of {steps} steps")
    times = time_recording((*DIGITS, f"steps={steps}"), runs, work.repeats)
    repeats = zip(times.plain, times.measured, times.storing, strict=True)
    share = median((measured + storing) / plain - 1 for plain, measured, storing in repeats)
    per_run = 1000 * median(times.storing) / runs
    measured = f"{share:.1%}, with {per_run:.1f} ms per run for storing"
    return [
        Row(f"recording in a stack of {runs} runs x {steps} steps", measured, "<= 5%", share <= 0.05, asdict(times))
    ]


def quickstart(work: Workload) -> list[Row]:
    """The study and its report."""
    work.say("quickstart")
    results = f"results_dir={work.folder / 'quickstart'}"
    few = TRY_OUT if work.tiny else ()
    study = commands.run("study=quickstart", results, *few, folder=work.folder)
    report = commands.run("study=quickstart", results, folder=work.folder, entry="report")
    runs = len(Store(work.folder / "quickstart").finished())
    times = {"study": study.seconds, "report": report.seconds, "runs": runs}
    row = at_most(f"quickstart, {runs} runs, and its report", study.seconds + report.seconds, 60, **times)
    return [Row(row.what, row.measured, f"{row.target}, 200 runs", bool(row.ok and runs >= 200), row.raw)]


def report(work: Workload) -> list[Row]:
    """`make report SCALE=quick`: all studies and the report on them; status 1 says that runs diverged or failed."""
    results = f"results_dir={work.folder / 'all'}"
    few = TRY_OUT if work.tiny else ()
    work.say("report: all studies at quick scale")
    study = commands.run("study=all", "scale=quick", results, *few, folder=work.folder, allowed=(0, 1))
    work.say("report: the report on all studies")
    made = commands.run("study=all", "scale=quick", results, folder=work.folder, entry="report")
    runs = len(Store(work.folder / "all").finished())
    times = {"studies": study.seconds, "report": made.seconds, "runs": runs}
    return [at_most(f"make report SCALE=quick, {runs} runs", study.seconds + made.seconds, 300, digits=0, **times)]


def packed(work: Workload) -> list[Row]:
    """A report on made-up runs from a packed store, against the store of one folder a run."""
    runs = work.few(10_000, 56)
    store, whole, thin = (work.folder / name for name in ("store", "whole", "thin"))
    work.say(f"packed: writing {runs} runs")
    maker = str(commands.REPOSITORY / "scripts" / "make_store.py")
    size = ("--runs", str(runs), "--rows", str(work.few(2000, 200)), "--seeds", str(work.few(60, 2)))
    commands.measure(maker, "--results-dir", str(store), *size, folder=work.folder, PYTHONPATH=str(commands.REPOSITORY))
    for packed, options in ((whole, ()), (thin, ("--thin",))):
        work.say(f"packed: packing into {packed.name}")
        commands.run("pack", *options, str(packed), f"results_dir={store}", folder=work.folder)
    seconds: dict[str, list[float]] = {each.name: [] for each in (store, whole, thin)}
    for _ in range(work.repeats):
        for each in (store, whole, thin):
            work.say(f"packed: a report from {each.name}")
            made = commands.run("study=large", f"results_dir={each}", folder=work.folder, entry="report")
            seconds[each.name].append(made.seconds)
    folders, of_whole, of_thin = (median(each) for each in seconds.values())
    name = f"report on {runs} runs"
    return [
        at_most(f"{name}, packed", of_whole, 20, **seconds),
        at_most(f"{name}, packed thin", of_thin, 20),
        speedup(f"{name}, packed against one folder a run", of_whole, folders),
        speedup(f"{name}, packed thin against one folder a run", of_thin, folders),
    ]
