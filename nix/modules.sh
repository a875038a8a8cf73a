# modules.sh DIR: in the directory of a go.mod and its go.sum, makes DIR the module cache that they pin.
#
# What is left in it depends on these two files alone, whichever proxy answered, and is the tree that `arch build` makes for an
# input with goModules: both have one digest. Of each module that provides packages, Go needs the files and the hash of the zip,
# and of each module in the graph go.mod; with these it builds although it cannot write there.
set -eu
export GOMODCACHE="$1" GOFLAGS=-mod=mod GOTOOLCHAIN=local GOWORK=off GOENV=off GOSUMDB=off
go mod download
sed -n 's,^\([^ ]*\) \([^ ]*\)/go\.mod .*,\1@\2,p' go.sum | xargs go list -m -json > /dev/null

cd "$GOMODCACHE/cache"
rm -rf lock vcs download/sumdb
find download -type f ! -name '*.mod' ! -name '*.ziphash' -delete
find download -type f -name '*.mod' | while read -r mod; do
  version=$(basename "$mod" .mod | sed 's/!\(.\)/\U\1/g') # in a file's name, an exclamation mark stands before each capital letter
  printf '{"Version":"%s"}' "$version" > "${mod%.mod}.info"
done
