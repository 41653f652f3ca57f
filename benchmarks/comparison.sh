#!/bin/sh
# LBF beside its peers on the whole generated CSS, 3D to 3D and 2D to 3D: docs/results.md.
#
#   sh benchmarks/comparison.sh [FOLDER] [--seeds 3 ...]   what follows FOLDER goes to `cqr compare`
#
# At full size (1,000 references, 5 seeds) LBF takes a quarter of an hour a seed on a core, a peer
# that is given whole images a minute; an interrupted one goes on.  REFERENCES=40 with
# `--set epochs=2 --seeds 2` shows in minutes that it works.
set -eu
place=${1:-artifacts/css}
[ $# -gt 0 ] && shift
mkdir -p "$place"
cd "$place"
cqr scenes --out fashion --references "${REFERENCES:-1000}"
cqr data fashion --list pictures.txt
cqr data fashion --protocol reference=drawing --list drawings.txt
sort -u pictures.txt drawings.txt > needed.txt
cqr extract --images fashion --list needed.txt --k 36
compare() {
  cqr compare --features artifacts/fashion.h5 \
    --set epochs=40 --set batch=512 --set together=4 --set lr=0.002 "$@"
}
whole=image-only,text-only,concatenation,show-and-tell,parameter-hashing,relationship,film,mrn,tirg
compare --out artifacts/comparisons/models \
  --models "lbf,$whole,compose-ae,tirg:input=regions" "$@"
compare --out artifacts/comparisons/drawings --protocol reference=drawing \
  --models "lbf,separate=lbf:separate_reference=true,tirg,tirg:input=regions" "$@"
