# toolchain.sh ZIP DIR: makes DIR the GOROOT that a zip of the module golang.org/toolchain holds (go.dev/doc/toolchain).
#
# In such a zip, go.mod files are named _go.mod, and nothing is executable. The tree is the one that `arch build` makes for an input
# "go:golang.org/toolchain@…": both have one digest.
set -eu
mkdir -p "$2"
unpacked=$(mktemp -d "$2/unpacked.XXXXXX")
unzip -q "$1" -d "$unpacked"
mv "$unpacked"/golang.org/toolchain@*/* "$2"
rm -r "$unpacked"

cd "$2"
find . -type f -exec chmod 644 {} +
find bin pkg/tool -type f -exec chmod 755 {} +
find lib -type f -name 'go_?*_?*_exec' -exec chmod 755 {} +
find . -type f -name _go.mod | while read -r mod; do
  mv "$mod" "${mod%_go.mod}go.mod"
done
