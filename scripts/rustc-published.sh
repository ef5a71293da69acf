#!/bin/sh
# RUSTC_WRAPPER of scripts/build.sh: calls rustc with the folders in REMAP (old=new, one a line) renamed, and with the flag in
# PROFILE_FLAG for what becomes part of the binary. As RUSTFLAGS they would be part of the hashes in names of build
# folders, and these would be in the binary instead.
rustc=$1
shift
case " $* " in *" --target "*) [ -z "$PROFILE_FLAG" ] || set -- "$@" "$PROFILE_FLAG" ;; esac
IFS='
'
for pair in $REMAP; do set -- "$@" "--remap-path-prefix=$pair"; done
exec "$rustc" "$@"
