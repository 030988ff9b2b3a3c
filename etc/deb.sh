#!/bin/sh
# Makes the Debian package from built programs: deb.sh BINARIES OUTDIR. Needs dpkg-deb and nothing else of Debian's.
set -eu

binaries=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../Cargo.toml" | head -1)
architecture=$(dpkg --print-architecture)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

"$here/install.sh" "$binaries" "$root" /usr
strip --strip-unneeded "$root/usr/bin/"* 2>/dev/null || true
install -D -m 644 "$here/../LICENSE" "$root/usr/share/doc/leveret/copyright"
install -D -m 644 "$here/../README.md" "$root/usr/share/doc/leveret/README.md"

mkdir "$root/DEBIAN"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" \
    -e "s/@SIZE@/$(du -k --summarize --apparent-size "$root/usr" | cut -f1)/" \
    "$here/debian/control" > "$root/DEBIAN/control"
echo /etc/leveret/leveret.toml > "$root/DEBIAN/conffiles"
for script in postinst prerm postrm; do
    install -m 755 "$here/debian/$script" "$root/DEBIAN/$script"
done
(cd "$root" && find usr etc -type f -exec md5sum {} + | sort -k2) > "$root/DEBIAN/md5sums"

mkdir -p "$out"
dpkg-deb --build --root-owner-group "$root" "$out/leveret_${version}_$architecture.deb"
