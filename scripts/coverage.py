"""How often a verdict is wrong: by simulation.

    python scripts/coverage.py [verdicts looks protocol] [--studies 3000] [--seed 0]

verdicts: the mean of the differences is exactly delta, or -delta for CONTRADICTED, so that neither SUPPORTED,
CONTRADICTED nor NEGLIGIBLE is true. Verdicts are those of `judge`: withheld ones count as INCONCLUSIVE. delta is 2
standard deviations of differences without failures, so that each verdict is possible. Cut differences are at a bound,
and the mean is that of the differences before they are cut. A seed collapses with a probability of 5%, by 20 standard
deviations, which the mean includes.

looks: seeds are added until a claim is decided. The share of studies without effect in which 0 is rejected at any look,
at 10, 15, ... 40 differences, by the anytime-valid method or by that for a single look; and, by the former, at any n
from 10 to 200. Then the price: half the width of the interval for n normal differences, in standard errors. Last, the
same errors where every look chooses the learning rate of each seed again, by all other seeds, with the claims' delta
and with a delta of 0, where every effect counts.

protocol: simulated runs of two equal arms over a grid of learning rates, a second pass of finer ones, and verdicts on
accuracy and speed, again with both deltas. A tenth of the studies.
"""

from __future__ import annotations

import argparse

from simulations.looks import tables_of_looks
from simulations.protocol import table_of_protocol
from simulations.verdicts import table_of_verdicts

TABLES = {"verdicts": table_of_verdicts, "looks": tables_of_looks, "protocol": table_of_protocol}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=list(TABLES), help=" ".join(TABLES))
    parser.add_argument("--studies", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.tables:
        TABLES[name](options.studies // 10 if name == "protocol" else options.studies, options.seed)


if __name__ == "__main__":
    main()
