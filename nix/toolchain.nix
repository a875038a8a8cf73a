# The Go toolchain as its authors publish it, by the digest under which `arch build` knows it, too (tests/examples/arch-itself). The one of
# nixpkgs has patches in its standard library, so it makes other binaries; and it need not be as new as go.mod asks.
{
  lib,
  stdenvNoCC,
  fetchurl,
  unzip,
}:

let
  pins = (lib.importJSON ./pins.json).toolchain;
  platform = stdenvNoCC.hostPlatform.go.GOOS + "-" + stdenvNoCC.hostPlatform.go.GOARCH;
in
fetchurl {
  name = "go-${pins.version}";
  url = "https://proxy.golang.org/golang.org/toolchain/@v/v0.0.1-go${pins.version}.${platform}.zip";
  hash = pins.hashes.${platform};
  recursiveHash = true;
  downloadToTemp = true;
  nativeBuildInputs = [ unzip ];
  postFetch = ''sh ${./toolchain.sh} "$downloadedFile" "$out"'';
}
