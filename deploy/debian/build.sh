#!/bin/sh
# Makes a Debian package of a binary that is there already, with nothing but dpkg-deb and binutils.
#
#   sh deploy/debian/build.sh target/dist/genapi-gateway [FOLDER]
#
# Prints the package's path; FOLDER (default: here) takes it. DEBFULLNAME and DEBEMAIL name the maintainer, DEB_REVISION the revision
# (default 1), SOURCE_DATE_EPOCH the date that stands in it, DEB_COMPRESSION what dpkg-deb is to compress with (default xz).
set -eu
umask 022

fail() {
    echo "$0: $1" >&2
    exit 1
}

[ $# -ge 1 ] || fail "which binary? sh deploy/debian/build.sh target/dist/genapi-gateway"
binary=$1
folder=${2:-.}
[ -x "$binary" ] || fail "$binary is no program; build it: cargo build --profile dist --locked"
for tool in dpkg-deb strip objdump gzip; do
    command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install dpkg binutils gzip"
done
here=$(cd "$(dirname "$0")" && pwd)
project=$(cd "$here/../.." && pwd)

upstream=$("$binary" --version)
upstream=${upstream#genapi-gateway }
version=$upstream-${DEB_REVISION:-1}
architecture=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-genapi-gateway maintainers} <${DEBEMAIL:-genapi-gateway@packages.invalid}>"
epoch=${SOURCE_DATE_EPOCH:-$(stat -c %Y "$project/CHANGELOG.md")}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 0755 "$root"
doc=$root/usr/share/doc/genapi-gateway

put() { # put MODE FILE PLACE
    install -D -m "$1" "$2" "$root/$3"
}
put 0755 "$binary" usr/bin/genapi-gateway
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/genapi-gateway"
put 0644 "$project/deploy/config.toml" etc/genapi-gateway/config.toml
install -d -m 0700 "$root/etc/genapi-gateway/credentials"
put 0644 "$project/deploy/genapi-gateway.service" usr/lib/systemd/system/genapi-gateway.service
put 0644 "$project/deploy/genapi-gateway.socket" usr/lib/systemd/system/genapi-gateway.socket
put 0644 "$here/sysusers.conf" usr/lib/sysusers.d/genapi-gateway.conf
put 0644 "$here/lintian-overrides" usr/share/lintian/overrides/genapi-gateway
put 0644 "$here/copyright" usr/share/doc/genapi-gateway/copyright
put 0644 "$project/config.toml.example" usr/share/doc/genapi-gateway/config.toml.example
put 0644 "$project/README.md" usr/share/doc/genapi-gateway/README.md
for page in operations signals refusals store deployment hosts migrate; do
    put 0644 "$project/docs/$page.md" "usr/share/doc/genapi-gateway/$page.md"
done
for front in nginx.conf haproxy.cfg haproxy-old-tls.cfg; do
    put 0644 "$project/deploy/front/$front" "usr/share/doc/genapi-gateway/examples/$front"
done
gzip -9nc "$project/CHANGELOG.md" >"$doc/changelog.gz"
gzip -9n >"$doc/changelog.Debian.gz" <<EOF
genapi-gateway ($version) stable; urgency=medium

  * Release $upstream; changelog.gz says what is new.

 -- $maintainer  $(date -R -u -d "@$epoch")
EOF
install -d "$root/usr/share/man/man8" "$root/usr/share/bash-completion/completions" \
    "$root/usr/share/zsh/vendor-completions" "$root/usr/share/fish/vendor_completions.d"
sed "s/@VERSION@/$upstream/" "$here/genapi-gateway.8" | gzip -9n >"$root/usr/share/man/man8/genapi-gateway.8.gz"
"$binary" completions bash >"$root/usr/share/bash-completion/completions/genapi-gateway"
"$binary" completions zsh >"$root/usr/share/zsh/vendor-completions/_genapi-gateway"
"$binary" completions fish >"$root/usr/share/fish/vendor_completions.d/genapi-gateway.fish"

# The newest symbol of the C library that the binary asks for says which one it needs.
libc=$(objdump -T "$root/usr/bin/genapi-gateway" | sed -n 's/.*(\?GLIBC_\([0-9.]*\))\?.*/\1/p' | sort -uV | tail -n 1)
libgcc=$(objdump -p "$root/usr/bin/genapi-gateway" | sed -n 's/.*NEEDED *libgcc_s\.so\.1/, libgcc-s1/p')
[ -n "$libc" ] || fail "$binary does not use the C library of Debian"

control=$root/DEBIAN
install -d "$control"
for script in postinst prerm postrm; do
    install -m 0755 "$here/$script" "$control/$script"
done
echo /etc/genapi-gateway/config.toml >"$control/conffiles"
(cd "$root" && find etc usr -type f ! -path etc/genapi-gateway/config.toml -exec md5sum {} + | LC_ALL=C sort -k 2) >"$control/md5sums"
cat >"$control/control" <<EOF
Package: genapi-gateway
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f 1)
Depends: libc6 (>= $libc)$libgcc, ca-certificates, systemd | systemd-standalone-sysusers | systemd-sysusers
Suggests: haproxy | nginx, postgresql
Section: net
Priority: optional
Description: authenticating reverse proxy for the iTero Gen API
 Legacy dental software keeps calling the iTero Gen API as it always did: the
 gateway puts the account's token on each call, sends it to the region that
 discovery names, renews tokens, retries what may be retried, and turns
 download links into its own.
 .
 The service is not started before it is configured: see
 /etc/genapi-gateway/config.toml and genapi-gateway(8).
EOF
find "$root" -exec touch -h -d "@$epoch" {} +
mkdir -p "$folder"
package=$folder/genapi-gateway_${version}_$architecture.deb
SOURCE_DATE_EPOCH=$epoch dpkg-deb --root-owner-group "-Z${DEB_COMPRESSION:-xz}" --build "$root" "$package" >/dev/null
echo "$package"
