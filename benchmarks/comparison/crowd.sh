#!/bin/sh
# Crowded scenes: LBF by how many regions it is given, and beside the best of its peers.
#
#   sh benchmarks/comparison/crowd.sh [FOLDER] [--jobs 1 ...]
#       what follows FOLDER goes to `cqr compare`
#
# Regions are true ones, in the order of how much is seen of each (true_regions.py, which prints how
# many objects 9, 18, 36 and 72 of them are; no scene has more than 40), so that no detector decides.
# First LBF by K with what `cqr train` took before it was tuned; then LBF, LBF without its fusion, and
# peers on its encoders, of 36 regions, with what tune.sh found for each on the grid's development
# world.
# Last LBF of 1,000 references (16,000 queries): half an hour to make and to train on; and with a
# third fusion, 20 epochs, and the loss that locates: an hour.
# The rest is sized for two cores and an hour: REFERENCES=300 (4,800 queries), EPOCHS=8, SEEDS=1.
# An interrupted comparison goes on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${1:-artifacts/crowd}
[ $# -gt 0 ] && shift
mkdir -p "$place"
cd "$place"
cqr scenes --layout crowd --out crowd --seed 303 --references "${REFERENCES:-300}" --no-pictures
[ -e artifacts/crowd.h5 ] || python "$here/true_regions.py" crowd artifacts/crowd.h5
slow=lr=0.001,together=2
fast=lr=0.004,together=4
now=lr=0.002,together=4
set -- --examples 0 --seeds "${SEEDS:-1}" --set "epochs=${EPOCHS:-8}" "$@"
cqr compare --features artifacts/crowd.h5 --data crowd --out artifacts/comparisons/crowd \
  --vary k=9,18,36 --models "lbf=lbf:locate=0,$slow,dropout=0.1" "$@"
on=k=36,input=regions,encoder=lbf
cqr compare --features artifacts/crowd.h5 --data crowd --out artifacts/comparisons/crowd-tuned \
  --models "lbf=lbf:locate=0,k=36,$fast,dropout=0,lbf of 18=lbf:locate=0,k=18,$fast,dropout=0,\
lbf with dropout 0.1=lbf:locate=0,k=36,$now,dropout=0.1,\
lbf without fusion=lbf:locate=0,k=36,$fast,dropout=0,fusion_depth=0,tirg:$on,$now,encoder_dropout=0,\
combiner:$on,$now,encoder_dropout=0,maaf:$on,$now,encoder_dropout=0" "$@"
cqr scenes --layout crowd --out crowd-large --seed 303 --references 1000 --no-pictures
[ -e artifacts/crowd-large.h5 ] ||
  python "$here/true_regions.py" crowd-large artifacts/crowd-large.h5
cqr compare --features artifacts/crowd-large.h5 --data crowd-large \
  --out artifacts/comparisons/crowd-large --set k=36 --models lbf=lbf:locate=0 "$@"
cqr compare --features artifacts/crowd-large.h5 --data crowd-large \
  --out artifacts/comparisons/crowd-locating "$@" --set k=36 --set epochs=20 \
  --models "lbf of 3 fusions that locates=lbf:fusion_depth=3,locate=0.2"
