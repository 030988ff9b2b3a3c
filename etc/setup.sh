#!/bin/sh
# Makes a machine ready to build Leveret: a C++ compiler and libclang for RocksDB's bindings, and RocksDB itself as an
# archive in a cache outside the clone, because compiling it takes a quarter of an hour on two cores. Says nothing and
# takes no time when there is nothing to do. Called by the Makefile; $1 is the folder the archive belongs in.
set -eu
lib_dir=$1

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        echo "setup: please run as root: $*" >&2
        exit 1
    fi
}

has_libclang() {
    ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/local/lib/libclang*.so* 2>/dev/null | grep -q . &&
        ls -d /usr/lib/llvm-*/lib/clang/*/include /usr/lib/clang/*/include 2>/dev/null | grep -q .
}

if ! command -v g++ >/dev/null || ! { [ -n "${LIBCLANG_PATH:-}" ] || has_libclang; }; then
    if ! command -v apt-get >/dev/null; then
        echo "setup: please install g++ and libclang (with its headers), then run make again" >&2
        exit 1
    fi
    echo "setup: installing g++ and libclang" >&2
    as_root apt-get update -qq >&2
    # The smallest set on Debian 12; the general package where that version is not to be had.
    DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends \
        g++ libclang1-14 libclang-common-14-dev >&2 ||
        DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends g++ libclang-dev >&2
fi

if [ ! -f "$lib_dir/librocksdb.a" ]; then
    echo "setup: compiling RocksDB once, into $lib_dir (about 11 minutes on two cores)" >&2
    build=$lib_dir.build
    mkdir -p "$build" "$lib_dir"
    # Without debug information: with it the compiler takes half as long again, and the archive is 1.5 GB instead of
    # 45 MB, which every link has to read.
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u CARGO_TARGET_DIR CARGO_PROFILE_RELEASE_DEBUG=false \
        cargo build --release --locked --package librocksdb-sys --target-dir "$build" >&2
    archive=$(find "$build" -name librocksdb.a | head -n 1)
    # Renamed into place, so that a half-copied archive is never taken for a whole one.
    cp "$archive" "$lib_dir/librocksdb.a.part"
    mv "$lib_dir/librocksdb.a.part" "$lib_dir/librocksdb.a"
    rm -rf "$build"
fi
