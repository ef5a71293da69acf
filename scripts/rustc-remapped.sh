#!/bin/sh
# RUSTC_WRAPPER of release builds: calls rustc with the folders in REMAP (old=new, one a line) renamed. As RUSTFLAGS they
# would be part of the hashes in names of build folders, and these would be in the binary instead.
rustc=$1
shift
IFS='
'
for pair in $REMAP; do set -- "$@" "--remap-path-prefix=$pair"; done
exec "$rustc" "$@"
