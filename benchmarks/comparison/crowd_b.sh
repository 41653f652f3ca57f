#!/bin/sh
# Crowded scenes, test B: a world of its own seed and held-out pairs, with four times the training.
#
#   sh benchmarks/comparison/crowd_b.sh [FOLDER] [--jobs 1 ...]
#       what follows FOLDER goes to `cqr compare`
#
# 4,000 references to learn from (64,000 pairs), 1,000 of the test (16,000); true regions, 36 of a
# picture.  First LBF as `cqr train` has it of crowds, one epoch of eight texts for each pair, and
# the same without the losses that locate, which no peer has, and of 18 regions (one seed); the
# Combiner and TIRG by what defaults.sh found for them on development's crowd (one seed); then TIRG
# by what it has on the grid, and LBF before its regions knew where others stand, the same, and with
# one text each, seven epochs; then, by AdamW and with all texts in their order, eight epochs each,
# LBF that learns where, LBF before that, and TIRG; last, one epoch each, LBF without the losses
# that locate, without its fusion too, and peers on its encoders with what tune.sh found for each on
# the grid's development world.  All know words by distance and keep the last epoch; what each has
# with and without a share of the reference's own vector is printed at the end.
# Sized for two cores with 16-bit products: an hour to make, one to two hours of a core for each of
# the first seven, two for those of one text, three for eight epochs, 40 minutes for the rest.  An
# interrupted comparison goes on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${1:-artifacts/crowd-b}
[ $# -gt 0 ] && shift
mkdir -p "$place"
cd "$place"
for texts in 1 8; do
  cqr scenes --layout crowd --out "crowd-b-$texts" --seed 808 --held-out 2 --references 4000 \
    --test-references 1000 --no-pictures --texts "$texts"
done
[ -e artifacts/crowd-b.h5 ] || python "$here/true_regions.py" crowd-b-1 artifacts/crowd-b.h5
compare() {
  out=artifacts/comparisons/$1
  data=crowd-b-$2
  shift 2
  cqr compare --features artifacts/crowd-b.h5 --data "$data" --out "$out" --examples 0 \
    --set k=36 --set select=last --precision bf16-mixed --seeds "${SEEDS:-1}" "$@"
}
on=input=regions,encoder=lbf,encoder_dropout=0,lr=0.002,together=4
last=relations=false,where_layers=last
compare crowd-b-relations 8 --set epochs=1 --models "lbf=lbf:" "$@"
(
  SEEDS=1
  compare crowd-b-unlocated 8 --set epochs=1 --models "lbf=lbf:locate=0,where=0" "$@"
  compare crowd-b-18 8 --set epochs=1 --models "lbf of 18=lbf:k=18" "$@"
  compare crowd-b-tuned 8 --set epochs=1 \
    --models "combiner on lbf encoder=combiner:$on,tirg on lbf encoder=tirg:$on,lr=0.004" "$@"
)
compare crowd-b-texts 8 --set epochs=1 \
  --models "lbf=lbf:where=0.3,$last,tirg on lbf encoder=tirg:$on" "$@"
compare crowd-b-muon 1 --set epochs=7 \
  --models "lbf=lbf:where=0.3,$last,tirg on lbf encoder=tirg:$on" "$@"
adamw=muon_lr=0,tep_depth=1,reorder=0
three=fusion_depth=3,$last,$adamw
before=where=0,waves=false,$three
on=$on,$adamw
compare crowd-b 1 --set "epochs=${EPOCHS:-8}" --models "lbf that learns where=lbf:where=0.3,$three,\
lbf that locates by distance=lbf:$before,tirg on lbf encoder=tirg:$on" "$@"
on=$on,waves=false
compare crowd-b-peers 1 --set epochs=1 --models "lbf=lbf:locate=0,$before,\
lbf without fusion=lbf:locate=0,$before,fusion_depth=0,\
maaf on lbf encoder=maaf:$on,tirg on lbf encoder=tirg:$on,combiner on lbf encoder=combiner:$on" "$@"
python "$here/reference_weight.py" --weights 0,0.4 artifacts/comparisons/crowd-b*/runs/*
