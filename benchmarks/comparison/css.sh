#!/bin/sh
# LBF on the whole generated CSS: 1,000 references with 16 modifications each in both splits.
#
#   sh benchmarks/comparison/css.sh [FOLDER] [--seed 1 ...]
#       what follows FOLDER goes to `cqr train`
#
# Takes about half an hour on two cores; an interrupted run goes on.
set -eu
place=${1:-artifacts/css}
[ $# -gt 0 ] && shift
mkdir -p "$place"
cd "$place"
cqr scenes --out fashion --no-drawings
cqr extract --images fashion --k 36
cqr train --features artifacts/fashion.h5 \
  --epochs 40 --batch 512 --together 4 --lr 0.002 --set dropout=0.1 --set locate=0 "$@"
cqr evaluate
