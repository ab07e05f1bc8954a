"""Mistakes on the command line, as a person makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

SHORT = ("steps=10", "model.width=16")

BAD = [
    (("lrr=0.1",), "lrr is not a known key; did you mean lr?"),
    (("model.widht=3",), "model.widht is not a known key; did you mean model.width?"),
    (("+extra=1",), "extra is not a known key"),
    (("norm=bach",), "norm=bach is not known; did you mean batch? Known: batch, "),
    (("nrom=batch",), "nrom is not a known key; did you mean norm?"),
    (("studdy=cost",), "studdy is not a known key; did you mean study?"),
    (("claim=dead_relus",), "claim=dead_relus is not allowed: a study lists its claims. To judge others: bnstudy"),
    (("figure=curves",), "figure=curves is not allowed: a run has no figure."),
    (("dropout=p50",), "dropout is not a known key; did you mean model.dropout?"),
    (("study=lr_tolerence",), "study=lr_tolerence is not known; did you mean lr_tolerance?"),
    (("lr=0",), "lr=0 is not allowed: it must be a number above 0."),
    (("lr=nan",), "lr=nan is not allowed: it must be a finite number."),
    (
        ("optim=adam", "optim.momentum=0.9"),
        "optim.momentum is not a known key here. Options of optim that have it: sgd.",
    ),
    (("norm=none", "norm.eps=1e-3"), "norm.eps is not a known key here. Options of norm that have it: batch, "),
    (("optim=adam", "momentum=0.9"), "did you mean norm.momentum or optim.momentum (with optim=sgd)?"),
    (("zzz=1",), "zzz is not a known key. Known: batch_size, cache_dir, "),
    (("probe=grad",), "probe=grad is not known. Known: backprop, "),
    (("momentum=0.9",), "did you mean norm.momentum or optim.momentum?"),
    (("norm=null",), "norm=null is not allowed: choose one of the group's options"),
    (("~seed",), "seed is missing"),
    (("--study=x",), "--study=x is not a flag: write study=x, without dashes."),
    (("results_dir=",), "results_dir= is not allowed: it must be the name of a folder."),
    (("cache_dir=",), "cache_dir= is not allowed: it must be the name of a folder, or null"),
    ((f"results_dir={'x' * 300}",), "is not allowed: it cannot be written (File name too long)."),
    ((f"data.root={'x' * 300}", "data=mnist"), "is too long: choose a shorter name."),
    (
        ("norm=[none,batch]",),
        "norm=[none,batch] is not allowed: a run has one norm; -m norm=none,batch, without bracke",
    ),
    (("norm=[none,batch]", "model=[mlp,vgg]"), "norm=[none,batch] is not allowed: a run has one norm; -m norm=none,ba"),
    (("study=[cost,affine]",), "a run has one study; study=all 'study.names=[cost,affine]' trains several."),
    (("lr=[0.1,1]",), "it must be a finite number. To sweep values, add -m and list them without brackets."),
    (("lr=0.1", "lr=0.2"), "lr=0.2 is not allowed: lr is given already, as lr=0.1."),
    (("norm=none", "norm=batch"), "norm=batch is not allowed: norm is given already, as norm=none."),
    (("-m", "seed=range(0,3,0)"), "seed=range(0,3,0) is not allowed: its step must not be 0."),
    (("-m", "seed=range(0,1000000000)"), "seed=range(0,1000000000) is not allowed: a sweep has at most 100000 runs."),
    (("-m", "norm=none,group", "norm.grups=4"), "norm.grups is not a known key; did you mean norm.groups?"),
    (("data.root=",), "data.root= is not allowed: it has no value."),
    (("hydra.launcher.executor=slurm", "hydra.launcher.account="), "hydra.launcher.account= is not allowed: it has no"),
    (("threads=100000",), "threads=100000 is not allowed: it must be from 1 to 1024, or null"),
    (("hydra.launcher.workers=1000000",), "hydra.launcher.workers=1000000 is not allowed: it must be from 1 to"),
    (("steps=10000000000000",), "steps=10000000000000 is not allowed: a run needs 1,000,000 GB of memory for the loss"),
    ((f"steps={'9' * 50}",), "9 is not allowed: it must be below 2^63."),
    ((f"steps={'9' * 5000}",), "9 is not allowed: it must be a whole number."),
    (("epochs=1e300", "steps=null"), "epochs=1e+300 is not allowed: it must be a number above 0 and below 1e9."),
    (("model.width=1000000000",), "model=MLP with depth=3, width=1000000000 is not allowed: its parameters alone need"),
    (("model.depth=100000000",), "is not allowed: the network has more than 10000 modules."),
    (("data=gaussian", "data.classes=1"), "data.classes=1 is not allowed: it must be 2 or more."),
    (("data=gaussian", "data.dim=1000000000"), "data.dim=1000000000, data.classes=10 needs 12,000 GB of memory"),
    (("study=quickstart", "study.claims=[foo]"), "The study's claim foo is unknown: there is no foo.yaml in"),
    (("study=quickstart", "study.claims=[foo]", "refine=false"), "The study's claim foo is unknown"),
    (("--config-dir", "nowhere"), "--config-dir=nowhere is not allowed: there is no such folder."),
    (("cache_dir=/proc/nowhere",), "cache_dir=/proc/nowhere is not allowed: it cannot be written"),
    (("lr=fast",), "lr=fast is not allowed: it must be a finite number."),
    (("batch_size=0",), "batch_size=0 is not allowed: it must be at least 1."),
    (("batch_size=5000",), "batch_size=5000 is not allowed: it must be at most 1150, the size of the training set."),
    (("epochs=1",), "epochs=1 and steps=10 are both given"),
    (("steps=null",), "neither is given"),
    (("norm=group", "norm.groups=3"), "norm.groups=3 is not allowed: it must be a divisor of the layer's 16 channels"),
    (("model=vgg", "~model.width", "model.depth=16"), "model.depth=16 is not allowed with images of 8x8"),
    (("device=gpu",), "device=gpu is not allowed: it must be auto, cpu, cuda or cuda:N."),
    (("device=cuda:99",), "device=cuda:99 is not allowed"),
    (("engine=fast",), "engine=fast is not allowed: it must be one of auto, serial"),
    (("objective=final.val_acc",), "did you mean final.val_accuracy?"),
    (("dry_run=maybe",), "dry_run=maybe is not allowed: it must be true or false."),
    (("hydra.launcher.job=3",), "hydra.launcher.job is not a known key; did you mean hydra.launcher.jobs?"),
    (("hydra.launcher=3",), "hydra.launcher=3 is not allowed: set its keys"),
    (("hydra.launcher.workers=0",), "hydra.launcher.workers=0 is not allowed: it must be from 1 to"),
    (("hydra.launcher.account=me",), "hydra.launcher.account=me is not allowed with hydra.launcher.executor=auto"),
    (("hydra/launcher=no_such",), "hydra/launcher=no_such is not known. Known: basic, bnstudy."),
    (("results_dir=/proc/nowhere",), "results_dir=/proc/nowhere is not allowed: it cannot be written"),
    (("data=image_folder", "data.root=nowhere"), "nowhere"),
    (("data.train_size=9999",), "data.train_size=9999 is not allowed"),
    (("lr=0.1,1",), "lr=0.1,1 lists several values: add -m to run them all."),
    (("lr=[",), "lr=[ cannot be read: write key=value, and quote what the shell would change."),
    (("quickstart",), "quickstart cannot be read: write key=value, without spaces, such as study=quickstart."),
    (("norm",), "norm cannot be read: write key=value, without spaces, such as lr=0.1."),
    (("lr.x=3",), "lr.x is not a known key; did you mean lr?"),
    (("hydra.verbose.x=1",), "hydra.verbose.x is not a known key"),
    (("lr=${nowhere}",), "lr: Interpolation key 'nowhere' not found"),
    (("=3",), "'=3' cannot be read: write key=value, such as lr=0.1."),
    (("",), "'' cannot be read: write key=value, such as lr=0.1."),
    (("hydra.mode=X",), "Invalid value 'X'"),
    (("study=quickstart", "lrr=1", "seed=0,1"), "lrr is not a known key; did you mean lr?"),
    (("study=quickstart", "hydra.mode=RUN"), "study=quickstart is a sweep"),
    (("--lr", "3"), "--lr is not a flag: a value is written key=value."),
    (("-m", "lr=1", "--cfg", "job"), "-m is not allowed with --cfg or --info"),
    (("--cfg=jobs",), "argument --cfg/-c: invalid choice: 'jobs'"),
    (("-m", "seed=0,1", "progress=true,false"), "progress cannot be swept: all runs of a sweep share its value."),
    (
        ("-m", "seed=0,1", "logger=csv,none"),
        "logger cannot be swept: all runs of a sweep share its value. To have the metrics",
    ),
    (("-m", "lr=0.1,-1", "seed=0,1"), "At lr=-1 seed=0: lr=-1 is not allowed"),
    (("-m", "norm=none,instance"), "At norm=instance: norm=instance is not allowed"),
    (("-m", "hydra.launcher.jobs=1,2"), "hydra.launcher.jobs=1,2 is not allowed: a sweep has one value"),
    (("hydra.launcher.jobs=1,2",), "hydra.launcher.jobs=1,2 is not allowed: a sweep has one value"),
    (("study=lr_tolerance", "scale=huge"), "scale=huge is not known"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_a_mistake_is_one_sentence_before_training(command, arguments, sentence):
    status, out, err = command(*arguments, *(s for s in SHORT if s.split("=")[0] not in " ".join(arguments)))
    assert (status, out) == (2, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("bnstudy: ")
    assert not list(Path().glob("results/runs/*/*"))


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("learning_rate", "lr"),
        ("LR", "lr"),
        ("batchsize", "batch_size"),
        ("bs", "batch_size"),
        ("epoch", "epochs"),
        ("iterations", "steps"),
        ("seeds", "seed"),
        ("dataset", "data"),
        ("network", "model"),
        ("activation", "model.activation"),
        ("depth", "model.depth"),
        ("hidden", "model.width"),
        ("optimizer", "optim"),
        ("weight_decay", "optim.weight_decay"),
        ("scheduler", "schedule"),
        ("output_dir", "results_dir"),
        ("workers", "hydra.launcher.workers"),
    ],
)
def test_a_key_of_other_tools_is_recognized(command, typed, key):
    status, _, err = command(f"{typed}=1", *SHORT)
    assert (status, f"{typed} is not a known key; did you mean {key}?" in err) == (2, True), err
