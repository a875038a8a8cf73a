# arch, arch-node-agent and arch-runnerd, byte for byte what a plain
#
#   CGO_ENABLED=0 GOAMD64=v1 GOFLAGS='-trimpath -buildvcs=false' go build -ldflags='-s -w -buildid=' ./cmd/...
#
# makes with the pinned toolchain, and what `arch build tests/examples/arch-itself` makes: three ways, one digest. That is why this is not
# buildGoModule: it builds from a vendor directory, and of a program built so Go does not record the hashes of its dependencies.
{
  lib,
  stdenvNoCC,
  callPackage,
  cacert,
}:

let
  go = callPackage ./toolchain.nix { };

  # What the compiler reads and nothing else, as in tests/examples/arch-itself: whatever changes beside it, the store path stays.
  root = toString ../.;
  directories = [
    "agent"
    "attest"
    "builder"
    "cmd"
    "runner"
  ];
  compiled =
    path: type:
    let
      relative = lib.removePrefix "${root}/" (toString path);
      top = lib.head (lib.splitString "/" relative);
      name = baseNameOf path;
    in
    if type == "directory" then
      lib.elem top directories && name != "testdata"
    else if relative == top then
      name == "go.mod" || name == "go.sum"
    else
      !(lib.hasSuffix "_test.go" name)
      && (!(lib.hasSuffix ".md" name) || lib.hasPrefix "attest/predicates/" relative); # those are embedded

  # The dependencies, fixed by their hash: the module cache that go.mod and go.sum pin.
  modules = stdenvNoCC.mkDerivation {
    name = "arch-modules";
    src = lib.cleanSourceWith {
      name = "arch-go-mod";
      src = ../.;
      filter = path: type: toString path == "${root}/go.mod" || toString path == "${root}/go.sum";
    };
    nativeBuildInputs = [
      go
      cacert
    ];
    buildPhase = ''
      export HOME=$NIX_BUILD_TOP
      sh ${./modules.sh} "$out"
    '';
    dontInstall = true;
    dontFixup = true;
    impureEnvVars = lib.fetchers.proxyImpureEnvVars ++ [ "GOPROXY" ];
    outputHashMode = "recursive";
    outputHash = (lib.importJSON ./pins.json).modules;
  };
in
stdenvNoCC.mkDerivation {
  pname = "arch";
  version = "0.1.0";

  src = lib.cleanSourceWith {
    name = "arch-source";
    src = ../.;
    filter = compiled;
  };

  strictDeps = true;
  nativeBuildInputs = [ go ];
  env = {
    CGO_ENABLED = "0";
    GOAMD64 = "v1";
    GOENV = "off";
    GOFLAGS = "-trimpath -buildvcs=false";
    GOMODCACHE = "${modules}";
    GOPROXY = "off";
    GOSUMDB = "off";
    GOTELEMETRY = "off";
    GOTOOLCHAIN = "local";
  };
  buildPhase = ''
    export HOME=$NIX_BUILD_TOP
    mkdir -p "$out/bin"
    go build -ldflags='-s -w -buildid=' -o "$out/bin/" ./cmd/...

    share=$out/share
    mkdir -p $share/man/man1 $share/man/man8 $share/bash-completion/completions $share/zsh/site-functions $share/fish/vendor_completions.d
    "$out/bin/arch" man --dir $share/man/man1 >/dev/null
    for program in arch-node-agent arch-runnerd; do "$out/bin/$program" --man >$share/man/man8/$program.8; done
    "$out/bin/arch" completion bash >$share/bash-completion/completions/arch
    "$out/bin/arch" completion zsh >$share/zsh/site-functions/_arch
    "$out/bin/arch" completion fish >$share/fish/vendor_completions.d/arch.fish
  '';
  dontInstall = true;
  dontFixup = true; # nothing may change the bytes
  disallowedReferences = [
    go
    modules
  ];

  passthru = { inherit go modules; };

  meta = {
    description = "Reproducible builds with signed receipts, and jobs that nobody has to trust";
    homepage = "https://arch.network";
    license = lib.licenses.asl20;
    mainProgram = "arch";
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
}
