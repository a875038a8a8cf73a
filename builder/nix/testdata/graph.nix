# Derivations of every kind, from nothing but the Debian packages bash-static and busybox-static: named by their recipe, by a fixed content in
# several forms, by their content, by what is named by its content, with several outputs, with structured attributes; one that fails.
# noisy names the one that differs at each build: "doc" or "float".
{ noisy ? "", url ? "http://127.0.0.1:1/" }:
let
  sh = builtins.path { path = "/bin/bash-static"; name = "bash"; };
  bb = builtins.path { path = "/bin/busybox"; name = "busybox"; };
  run = name: attrs: script: derivation ({ inherit name; system = builtins.currentSystem; builder = sh; args = [ "-c" ''
    set -eu; mkdir() { (exec -a mkdir ${bb} "$@"); }; cat() { (exec -a cat ${bb} "$@"); }
    ${script}'' ]; } // attrs);
  ca = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
  noise = "echo $RANDOM$RANDOM";
in rec {
  note = builtins.toFile "note" "quote \" backslash \\ tab\t end\n${sh}";
  fixed = run "fixed" { outputHash = builtins.hashString "sha256" "fixed\n"; outputHashAlgo = "sha256"; outputHashMode = "flat"; urls = "https://example.org/fixed https://example.com/fixed"; } "echo fixed > $out";
  fixedSha1 = run "fixed-sha1" { outputHash = builtins.hashString "sha1" "one\n"; outputHashAlgo = "sha1"; } "echo one > $out";
  multi = run "multi" { outputs = [ "out" "dev" "doc" ]; } ''
    mkdir -p $out $dev; echo "lib ${note} ${fixed}" > $out/lib; echo "dev of $out" > $dev/header
    { echo doc; ${if noisy == "doc" then noise else ":"}; } > $doc; echo "dev $dev" >/dev/null'';
  two = run "two" { dep = multi.dev; lib = multi; sha1 = fixedSha1; } "mkdir $out; cat $dep/header $sha1 > $out/two; echo $lib >> $out/two";
  float = run "float" (ca // { dep = two; }) "mkdir $out; echo self $out > $out/self; cat $dep/two > $out/two; ${if noisy == "float" then "${noise} > $out/noise" else ":"}";
  leaf = run "leaf" { dep = float; } "mkdir $out; cat $dep/two > $out/leaf";
  structured = run "structured" { __structuredAttrs = true; list = [ 1 2 ]; } ''. .attrs.sh; echo "''${list[@]}" > "''${outputs[out]}"'';
  caleaf = run "caleaf" (ca // { dep = float; outputs = [ "out" "bin" ]; }) "mkdir $out; cat $dep/two > $out/leaf; mkdir $bin; echo $out > $bin/x";
  fetched = derivation {
    name = "fetched"; builder = "builtin:fetchurl"; system = "builtin"; inherit url; unpack = false; executable = false;
    outputHash = builtins.hashString "sha256" "from afar\n"; outputHashAlgo = "sha256"; outputHashMode = "flat"; preferLocalBuild = true;
  };
  uses = run "uses" { inherit fetched; } "cat $fetched > $out";
  shell = run "shell" { } "if test -e /bin/sh; then cat /bin/sh > $out; else echo none > $out; fi";
  fails = run "fails" { } "echo it broke >&2; exit 3";
}
