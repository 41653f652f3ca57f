#!/bin/sh
# Crowded scenes: LBF by how many regions it is given, and beside the best of its peers.
#
#   sh benchmarks/comparison/crowd.sh [FOLDER] [--jobs 1 ...]
#       what follows FOLDER goes to `cqr compare`
#
# Regions are true ones, in the order of how much is seen of each (true_regions.py, which prints how
# many objects 9, 18, 36 and 72 of them are; no scene has more than 40), so that no detector decides.
# First LBF by K with what `cqr train` took before it was tuned; then of 36 regions and of 18 with what
# tune.sh found on the grid's development world, several seeds; then, of 36, LBF without its fusion and
# peers on its encoders, with what tune.sh found for each.
# Last LBF of 1,000 references (16,000 queries): half an hour to make and to train on; with a third
# fusion, 20 epochs, and the loss that locates: an hour; and with words by distance, as `cqr train`
# takes now, and one pool, 24 epochs in 16 bits: an hour of a core with AMX.
# The rest is sized for two cores and an hour: REFERENCES=300 (4,800 queries), EPOCHS=8, SEEDS=5 of K.
# What is run on a crowd of its own, once, when all was chosen: crowd_b.sh.
# An interrupted comparison goes on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${1:-artifacts/crowd}
[ $# -gt 0 ] && shift
mkdir -p "$place"
cd "$place"
cqr scenes --layout crowd --out crowd --seed 303 --references "${REFERENCES:-300}" --no-pictures
[ -e artifacts/crowd.h5 ] || python "$here/true_regions.py" crowd artifacts/crowd.h5
before=waves=false,tep_depth=1,reorder=0,reference_weight=0,muon_lr=0
paper=locate=0,where=0,word_reach=0,relations=false,$before
slow=$paper,fusion_depth=2,dropout=0.1,lr=0.001,together=2
fast=$paper,dropout=0,lr=0.004,together=4
now=lr=0.002,together=4
set -- --examples 0 --set "epochs=${EPOCHS:-8}" "$@"
cqr compare --features artifacts/crowd.h5 --data crowd --out artifacts/comparisons/crowd --seeds 1 \
  --vary k=9,18,36 --models "lbf=lbf:$slow" "$@"
cqr compare --features artifacts/crowd.h5 --data crowd --out artifacts/comparisons/crowd-k \
  --seeds "${SEEDS:-5}" \
  --models "lbf=lbf:k=36,fusion_depth=2,$fast,lbf of 18=lbf:k=18,fusion_depth=2,$fast" "$@"
on=k=36,input=regions,encoder=lbf,word_reach=0,encoder_dropout=0,$before
cqr compare --features artifacts/crowd.h5 --data crowd --out artifacts/comparisons/crowd-tuned \
  --seeds 1 --models "lbf=lbf:k=36,fusion_depth=2,$fast,\
lbf with dropout 0.1=lbf:k=36,$paper,fusion_depth=2,dropout=0.1,$now,\
lbf without fusion=lbf:k=36,fusion_depth=0,$fast,\
tirg:$on,$now,combiner:$on,$now,maaf:$on,$now" "$@"
cqr scenes --layout crowd --out crowd-large --seed 303 --references 1000 --no-pictures
[ -e artifacts/crowd-large.h5 ] ||
  python "$here/true_regions.py" crowd-large artifacts/crowd-large.h5
cqr compare --features artifacts/crowd-large.h5 --data crowd-large \
  --out artifacts/comparisons/crowd-large --seeds 1 --set k=36 --models "lbf=lbf:$paper,fusion_depth=2" "$@"
cqr compare --features artifacts/crowd-large.h5 --data crowd-large \
  --out artifacts/comparisons/crowd-locating --seeds 1 "$@" --set k=36 --set epochs=20 \
  --models "lbf of 3 fusions that locates=lbf:fusion_depth=3,where=0,relations=false,word_reach=0,$before"
cqr compare --features artifacts/crowd-large.h5 --data crowd-large \
  --out artifacts/comparisons/crowd-union --seeds 1 "$@" --set k=36 --set epochs=24 \
  --precision bf16-mixed \
  --models "lbf with distances and union=lbf:fusion_depth=3,joint=union,where=0,relations=false,$before"
