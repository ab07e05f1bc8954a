"""The parts of the published results: which studies each trains, and with which commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnstudy.store.files import conf_dir

EXAMPLES = ("quickstart", "own_network")
"""Studies that show how to use bnstudy. Their claims are those of other studies."""

ON_CIFAR10 = ("convolutions", "convolutions_small_batches", "course_mlp", "wu_he_batches")
"""Studies whose images are those of CIFAR-10, here from the JPEG files."""

CIFAR10_NAME = "CIFAR-10 (JPEG)"
"""The images are re-encoded, so they are not called CIFAR-10."""


@dataclass(frozen=True)
class Part:
    """Studies that are trained together. store: the folder of their runs, within the folder of the work."""

    name: str
    studies: tuple[str, ...]
    scale: str = "standard"
    store: str = "standard"

    def commands(self, data: Path, cifar10: Path, work: Path, overrides: Sequence[str] = ()) -> list[list[str]]:
        """The words of each command line, after `bnstudy`.

        A study of its own command keeps its name by `study.name`: with images in other files it would be a variant.

        Args:
            data: has MNIST. cifar10: has a folder of JPEG files for each class.
            overrides: for a trial, such as `seed=0,1`: then each study has a command of its own.
        """
        common = [f"scale={self.scale}", f"results_dir={work / self.store}"]
        own_images = ["data=image_folder", f"data.root={cifar10}", f"data.name='{CIFAR10_NAME}'"]
        alone = [name for name in self.studies if overrides or (name in ON_CIFAR10 and self.scale == "standard")]
        together = [name for name in self.studies if name not in alone]
        lines = []
        if together:
            names = f"study.names=[{','.join(together)}]"
            lines.append(["study=all", names, *common, f"data.root={data}"])
        for name in alone:
            is_other = name in ON_CIFAR10 and self.scale == "standard"
            images = own_images if is_other else [f"data.root={data}"]
            lines.append([f"study={name}", *common, *images, f"study.name={name}", *overrides])
        return lines


def studies() -> tuple[str, ...]:
    """Every study of conf/, without `all`, which stands for them."""
    return tuple(sorted(path.stem for path in (conf_dir() / "study").glob("*.yaml") if path.stem != "all"))


ON_MNIST = (
    "affine", "alternatives", "convergence", "cost", "covariate_shift", "dead_relu", "ghost_batches", "gradient_flow",
    "init_dependence", "init_schemes", "lr_tolerance", "norm_alone", "placement", "regularization",
    "running_statistics", "saturation", "small_batches", "small_batches_equal_updates", "small_data",
    "small_data_equal_epochs",
)  # fmt: skip
"""Studies whose networks are MLPs."""

SEQUENCES = ("sequences", "sequences_lengths", "sequences_small_batches")

PARTS = (
    # For comparison with MNIST, so without studies that train no more than a trial on digits, such as those of
    # residual networks.
    Part("digits", (*ON_MNIST, *SEQUENCES), scale="quick", store="digits"),
    Part("mnist", ON_MNIST),
    Part("networks", ("architectures", "residual_alternatives", "residual_placement")),
    Part("sequences", SEQUENCES),
    Part("cifar", ("convolutions",)),
    Part("cifar_batches", ("convolutions_small_batches",)),
    Part("cifar_epochs", ("wu_he_batches",)),
    Part(
        "reproductions",
        ("course_mlp", "ioffe_fig1", "lu_born_dead", "notebook_relu", "santurkar_linear", "yang_explosion"),
    ),
    Part(
        "newer",
        (
            "best_rates", "edge_of_stability", "equal_rates", "orthogonal_linear", "rank_collapse",
            "transformer_norms", "weight_decay",
        ),
    ),
)  # fmt: skip
