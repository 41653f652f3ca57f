#!/bin/sh
# LBF beside its peers on the whole generated CSS, 3D to 3D and 2D to 3D: docs/results.md.
#
#   sh benchmarks/comparison.sh [FOLDER] [--seeds 3 ...]   what follows FOLDER goes to `cqr compare`
#
# At full size (1,000 references, 5 seeds) a run of LBF takes ten minutes of a core, one of a peer
# half a minute to fifteen; an interrupted comparison goes on.  REFERENCES=40 with
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
cqr extract --images fashion --list pictures.txt --k 9 --detector grid --config bundled \
  --out artifacts/map.h5
compare() {
  cqr compare --features artifacts/fashion.h5 \
    --set epochs=40 --set batch=512 --set together=4 --set lr=0.002 "$@"
}
whole=image-only,text-only,concatenation,show-and-tell,parameter-hashing,relationship,film,mrn,tirg
mapped="tirg on mapped regions=tirg:input=regions,local=mlp"  # a region's feature and box, mapped
compare --out artifacts/comparisons/models \
  --models "lbf,max pooled=lbf:pool=max,$whole,compose-ae" \
  --models "tirg on regions=tirg:input=regions,$mapped" \
  --models "tirg on a map=tirg:form=last-conv,input=regions,features=artifacts/map.h5" "$@"
compare --out artifacts/comparisons/drawings --protocol reference=drawing \
  --models "lbf,separate=lbf:separate_reference=true,$mapped" "$@"
