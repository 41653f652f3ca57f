#!/bin/sh
# What `cqr train` takes on generated scenes: rate, dropout, queries of a reference together, how
# much of the losses that tell LBF which regions a text is about, whether words have places or
# distances, what is pooled, how much of a reference's own vector is sought with, and what moves the
# linear maps.
#
#   sh benchmarks/comparison/defaults.sh [FOLDER] [--jobs 1 ...]
#       what follows FOLDER goes to `cqr compare`
#
# On development worlds, which nothing is reported of, made here: the grid's of 200 references, and
# of crowds one of 300 and one of 1,000, that in four texts and in eight too (six hours of a core).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${1:-artifacts/defaults}
[ $# -gt 0 ] && shift
mkdir -p "$place"
cd "$place"
cqr scenes --out development --seed 101 --held-out 1 --references 200 --no-pictures --no-drawings
cqr scenes --out crowded --layout crowd --seed 909 --held-out 1 --references 300 --no-pictures
cqr scenes --out more --layout crowd --seed 909 --held-out 1 --references 1000 --no-pictures
for texts in 4 8; do
  cqr scenes --out "more-$texts" --layout crowd --seed 909 --held-out 1 --references 1000 \
    --no-pictures --texts "$texts"
done
for world in development crowded more; do
  [ -e "artifacts/$world.h5" ] || python "$here/true_regions.py" "$world" "artifacts/$world.h5"
done
chosen=lr=0.002,dropout=0,together=4
places=word_reach=0,joint=both
older=tep_depth=1,reorder=0
last=relations=false,where_layers=last
where=where=0.3,$last
three=fusion_depth=3,$last,$older
before=where=0,waves=false,$last,$older,reference_weight=0,muon_lr=0
many=locate=0.2,fusion_depth=3,$before,$chosen
cqr compare --features artifacts/development.h5 --data development \
  --out artifacts/comparisons/defaults --seeds 1 --examples 0 --set epochs=12 --set muon_lr=0 \
  --models "before=lbf:locate=0,lr=0.001,dropout=0.1,together=2,\
together=lbf:locate=0,lr=0.002,dropout=0.1,together=4,\
without dropout=lbf:locate=0,$chosen,\
faster=lbf:locate=0,lr=0.004,dropout=0,together=4,\
locating by half=lbf:locate=0.5,$chosen,\
locating by 1=lbf:locate=1,$chosen,\
locating by 2=lbf:locate=2,$chosen" "$@"
cqr compare --features artifacts/crowded.h5 --data crowded \
  --out artifacts/comparisons/defaults-crowd --seeds 1 --examples 0 --set epochs=8 --set k=36 \
  --models "two fusions=lbf:locate=0,$places,fusion_depth=2,$before,$chosen,\
three=lbf:locate=0,$places,fusion_depth=3,$before,$chosen,\
locating by a fifth=lbf:locate=0.2,$places,fusion_depth=3,$before,$chosen,\
locating by 1=lbf:locate=1,$places,fusion_depth=3,$before,$chosen" "$@"
cqr compare --features artifacts/crowded.h5 --data crowded \
  --out artifacts/comparisons/defaults-crowd-words --seeds 2 --examples 0 "$@" --set epochs=8 \
  --set k=36 --precision bf16-mixed --models "places=lbf:$places,$many,\
union=lbf:word_reach=0,joint=union,$many,\
distances=lbf:word_reach=4,joint=both,$many,\
distances and union=lbf:word_reach=4,joint=union,$many"
# The same on the grid: two seeds of six epochs.
cqr compare --features artifacts/development.h5 --data development \
  --out artifacts/comparisons/defaults-words --seeds 2 --examples 0 --set epochs=6 --set muon_lr=0 \
  --models "places=lbf:$places,locate=1,$chosen,\
distances=lbf:word_reach=4,joint=both,locate=1,$chosen,\
union=lbf:word_reach=0,joint=union,locate=1,$chosen,\
distances and union=lbf:word_reach=4,joint=union,locate=1,$chosen" "$@"
# A map that learns where, and waves; then each run by how much of the reference's vector is sought
# with.
cqr compare --features artifacts/more.h5 --data more \
  --out artifacts/comparisons/defaults-where --seeds 1 --examples 0 --set epochs=4 --set k=36 \
  --set muon_lr=0 --precision bf16-mixed --models "neither=lbf:$three,where=0,waves=false,\
waves=lbf:$three,where=0,a third of both=lbf:$three,where=0.3,both=lbf:$three,where=1,\
map=lbf:$three,where=1,waves=false" "$@"
# Linear maps by Muon, of LBF and of the best of its peers there; then with two layers of TEP, texts
# whose words a training reads in another order, and more fusions.
all=input=regions,encoder=lbf
on=$all,encoder_dropout=0,lr=0.002,together=4
moved() {
  out=artifacts/comparisons/$1
  data=$2
  shift 2
  cqr compare --features artifacts/more.h5 --data "$data" --out "$out" --seeds 1 --examples 0 \
    --set k=36 --precision bf16-mixed "$@"
}
moved defaults-muon more "$@" --set epochs=4 --models "adamw=lbf:where=0.3,$three,muon_lr=0,\
muon=lbf:where=0.3,$three,muon without where and waves=lbf:$three,where=0,waves=false,\
all else faster=lbf:where=0.3,$three,lr=0.004,more decay=lbf:where=0.3,$three,weight_decay=0.1,\
tirg by adamw=tirg:$on,$older,muon_lr=0,tirg by muon=tirg:$on,$older"
moved defaults-reorder more "$@" --set epochs=4 --models "one layer=lbf:where=0.3,$three,\
ordered=lbf:fusion_depth=3,reorder=0,$where,half=lbf:fusion_depth=3,$where,\
eight in ten=lbf:fusion_depth=3,reorder=0.8,$where,five fusions=lbf:$where"
moved defaults-points more "$@" --set epochs=4 --models "points more=lbf:where=1,$last,\
eight together=lbf:together=8,$where"
# The same number of queries, each pair in four texts.
moved defaults-texts more-4 "$@" --set epochs=1 --models "four texts=lbf:$where,points more=lbf:where=1,$last"
# Eight texts of each pair: regions that know where others stand, and all layers taught where.
moved defaults-relations more-8 "$@" --set epochs=1 \
  --models "as before=lbf:$where,relations=lbf:"
moved defaults-relations-longer more-8 "$@" --set epochs=3 --models "relations=lbf:"
# Peers there, by the trials of tune.sh: TIRG by all four, a faster Muon and its own paper's loss; the
# Combiner and MAAF by the one that was best for them on the grid.
moved defaults-peers more-8 "$@" --set epochs=1 --models "tirg / 3=tirg:$on,\
tirg / 3 by 0.012=tirg:$on,muon_lr=0.012,\
tirg / 1=tirg:$on,lr=0.004,\
tirg / 0=tirg:$all,lr=0.001,encoder_dropout=0.1,together=2,\
tirg / sampled=tirg:$on,loss=soft-triplet-sampled,\
tirg / 2=tirg:$all,lr=0.002,loss=soft-triplet,encoder_dropout=0.1,together=1,\
combiner / 3=combiner:$on,maaf / 3=maaf:$on"
moved defaults-reorder-longer more "$@" --set epochs=8 --models "one layer=lbf:where=0.3,$three,\
half=lbf:fusion_depth=3,$where"
cqr compare --features artifacts/development.h5 --data development \
  --out artifacts/comparisons/defaults-grid-muon --seeds 2 --examples 0 --set epochs=6 \
  --models "adamw=lbf:muon_lr=0,muon by 0.003=lbf:muon_lr=0.003,muon by 0.006=lbf:muon_lr=0.006,\
muon by 0.012=lbf:" "$@"
for compared in defaults-where defaults-crowd-words defaults; do
  python "$here/reference_weight.py" artifacts/comparisons/$compared/runs/*
done
