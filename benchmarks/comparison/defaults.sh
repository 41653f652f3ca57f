#!/bin/sh
# What `cqr train` takes on generated scenes: rate, dropout and queries of a reference together.
#
#   sh benchmarks/comparison/defaults.sh [FOLDER] [--jobs 1 ...]
#       what follows FOLDER goes to `cqr compare`
#
# On the development world, which nothing is reported of, made here of 200 references.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${1:-artifacts/defaults}
[ $# -gt 0 ] && shift
mkdir -p "$place"
cd "$place"
cqr scenes --out development --seed 101 --held-out 1 --references 200 --no-pictures --no-drawings
[ -e artifacts/development.h5 ] ||
  python "$here/true_regions.py" development artifacts/development.h5
cqr compare --features artifacts/development.h5 --data development \
  --out artifacts/comparisons/defaults --seeds 1 --examples 0 --set epochs=12 \
  --models "before=lbf:locate=0,lr=0.001,dropout=0.1,together=2,\
together=lbf:locate=0,lr=0.002,dropout=0.1,together=4,\
without dropout=lbf:locate=0,lr=0.002,dropout=0,together=4,\
faster=lbf:locate=0,lr=0.004,dropout=0,together=4" "$@"
