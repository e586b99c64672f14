#!/bin/sh
# Fetch the updater's cryptography into FOLDER and unpack it there: fetch.sh FOLDER.
# Monocypher (Ed25519's curve) from PyPI's pymonocypher, BearSSL (SHA-2) from Debian's source
# package. Both are pinned by hash and never part of this tree. A file that lies in FOLDER already
# is used, so that a machine without a network can be given both.
set -eu
monocypher=pymonocypher-4.0.3.0.tar.gz
monocypher_sha256=93ca80b0bd4ef7ab30417fbc2abafe11aa7261125627ba2157c594cb0c8e0d1e
bearssl=bearssl_0.6+dfsg.1.orig.tar.xz
bearssl_sha256=102a625bd8f6155260867a50c508df8d8c3f796985dd744df1a68e5cd1a79004
bearssl_url=http://deb.debian.org/debian/pool/main/b/bearssl/$bearssl
python=${PYTHON:-python3}
mkdir -p "$1"
cd "$1"

holds() { [ -f "$1" ] && echo "$2  $1" | sha256sum -c --status; }
refuse() {
    echo "fetch.sh: $PWD/$1 must have SHA-256 $2, found $(sha256sum "$1" 2>/dev/null | cut -c1-64);" \
        "check the network, or put the right file there by hand ($3)" >&2
    exit 1
}

if ! holds "$monocypher" "$monocypher_sha256"; then
    "$python" -m pip download -q --disable-pip-version-check --no-deps --no-binary pymonocypher \
        pymonocypher==4.0.3.0 -d . >pip.log 2>&1 || tail -3 pip.log >&2
    holds "$monocypher" "$monocypher_sha256" ||
        refuse "$monocypher" "$monocypher_sha256" "pip download pymonocypher==4.0.3.0"
fi
if ! holds "$bearssl" "$bearssl_sha256"; then
    "$python" - "$bearssl_url" "$bearssl" <<'END' || true
import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=60) as answer, open(sys.argv[2], "wb") as file:
    file.write(answer.read())
END
    holds "$bearssl" "$bearssl_sha256" || refuse "$bearssl" "$bearssl_sha256" "$bearssl_url"
fi
[ -f monocypher/monocypher.c ] || { rm -rf monocypher.partial && mkdir monocypher.partial &&
    tar -xzf "$monocypher" --strip-components=1 -C monocypher.partial &&
    mv monocypher.partial monocypher; }
[ -f bearssl/inc/bearssl.h ] || { rm -rf bearssl.partial && mkdir bearssl.partial &&
    tar -xJf "$bearssl" --strip-components=1 -C bearssl.partial && mv bearssl.partial bearssl; }
