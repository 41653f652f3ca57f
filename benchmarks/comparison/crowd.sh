#!/bin/sh
# Crowded scenes: LBF by how many regions it is given, and beside the best of its peers.
#
#   sh benchmarks/comparison/crowd.sh [FOLDER] [--seeds 5 ...]
#       what follows FOLDER goes to `cqr compare`
#
# Regions are true ones, in the order of how much is seen of each (true_regions.py, which prints how
# many objects 9, 18, 36 and 72 of them are; no scene has more than 40).  The bundled detector was
# not trained on crowds.  An interrupted comparison goes on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=${1:-artifacts/crowd}
[ $# -gt 0 ] && shift
mkdir -p "$place"
cd "$place"
cqr scenes --layout crowd --out crowd --seed 303 --references "${REFERENCES:-400}" --no-pictures
[ -e artifacts/crowd.h5 ] || python "$here/true_regions.py" crowd artifacts/crowd.h5
on=input=regions,encoder=lbf
cqr compare --features artifacts/crowd.h5 --data crowd --out artifacts/comparisons/crowd \
  --set "epochs=${EPOCHS:-20}" --examples 0 --vary k=9,18,36,72 \
  --models "lbf,maaf:$on,deepset:$on,film:$on,tirg:$on" "$@"
