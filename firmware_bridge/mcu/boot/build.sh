#!/bin/sh
# Build a part of the updater, only what is out of date; the last line of the output is its path, in
# build/boot:
#   build.sh powercut | powercut-sanitized     the simulator of power cuts
#   build.sh bootloader.elf KEY [developer]     for QEMU; KEY: an Ed25519 public key, 64 hex digits;
#                                               developer: it is a developer's, and the board says so
#   build.sh slot.bin                           the firmware for a slot of it, to be signed
set -eu
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
out=$root/build/boot
what=$1
key=${2:-}
developer=${3:+-developer}
mkdir -p "$out"
exec 9>"$out/.lock"
flock 9
./fetch.sh "$root/build/downloads"
generated=
product=$what
case $what in
bootloader.elf)
    case $key in *[!0-9a-f]*) key= ;; esac
    [ ${#key} -eq 64 ] || { echo "build.sh: the bootloader's key must be 64 hex digits (0-9, a-f)," \
        "found '${2:-}'; give the Ed25519 public key" >&2; exit 2; }
    product=bootloader-$key$developer.elf ;;
slot.bin) generated=$(../build.sh generated | tail -1) ;;
esac
make -s OUT="$out" CRYPTO="$root/build/downloads" GEN="$generated" KEY="$key" DEVELOPER="$developer" "$what" >&2
echo "$out/$product"
