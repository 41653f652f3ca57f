#!/bin/sh
# The loss that tells LBF's fusion which regions a text is about: how much of it.
#
#   sh benchmarks/comparison/locating.sh [FOLDER] [--jobs 1 ...]
#       what follows FOLDER goes to `cqr compare`
#
# On development worlds, which nothing is reported of: the grid's, 200 references, three seeds, a
# quarter of an hour of a core; and one of crowds, 300 references, one seed, half an hour.
# FOLDER/artifacts/comparisons/locating/comparison.html and locating-crowd beside it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${1:-artifacts/locating}
[ $# -gt 0 ] && shift
mkdir -p "$place"
cd "$place"
cqr scenes --out development --seed 101 --held-out 1 --references 200 --no-pictures --no-drawings
cqr scenes --out crowded --layout crowd --seed 909 --held-out 1 --references 300 --no-pictures
for world in development crowded; do
  [ -e "artifacts/$world.h5" ] || python "$here/true_regions.py" "$world" "artifacts/$world.h5"
done
cqr compare --features artifacts/development.h5 --data development \
  --out artifacts/comparisons/locating --examples 0 --seeds "${SEEDS:-3}" --set epochs=12 \
  --models "0=lbf:locate=0,half=lbf:locate=0.5,1=lbf:locate=1,2=lbf:locate=2,\
nothing too=lbf:locate=1,nothing=true" "$@"
cqr compare --features artifacts/crowded.h5 --data crowded \
  --out artifacts/comparisons/locating-crowd --examples 0 --seeds 1 --set epochs=8 --set k=36 \
  --models "two fusions=lbf:locate=0,fusion_depth=2,three=lbf:locate=0,fusion_depth=3,\
a fifth=lbf:locate=0.2,fusion_depth=3,1=lbf:locate=1,fusion_depth=3" "$@"
