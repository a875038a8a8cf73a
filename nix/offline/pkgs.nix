# The packages that the flake uses. Builders have busybox for a shell and for every tool.
{ lib, system }:

let
  busybox = "${./bin}/busybox";
  build =
    attrs: script:
    derivation (
      {
        inherit system;
        builder = busybox;
        args = [
          "sh"
          "-euc"
          ''
            export PATH=$NIX_BUILD_TOP/.tools HOME=/homeless-shelter
            ${busybox} mkdir "$PATH"
            ${busybox} --install -s "$PATH"
            # Compilers may keep what they made here, between builds: see tests/nix.
            if [ -d /build-cache ]; then export XDG_CACHE_HOME=/build-cache; fi
            ${script}
          ''
        ];
      }
      // attrs
    );
  empty = name: build { inherit name; } ''mkdir "$out"'';

  pkgs = {
    inherit lib;
    callPackage =
      file: extra:
      let
        f = import file;
      in
      f (lib.intersectAttrs (lib.functionArgs f) pkgs // extra);

    stdenv.hostPlatform.system = system;
    stdenvNoCC = {
      hostPlatform = {
        inherit system;
        go = {
          GOOS = "linux";
          GOARCH = { x86_64-linux = "amd64"; aarch64-linux = "arm64"; }.${system};
        };
      };
      mkDerivation =
        attrs:
        build (
          removeAttrs attrs [
            "env"
            "meta"
            "passthru"
          ]
          // attrs.env or { }
          // {
            name = attrs.name or "${attrs.pname}-${attrs.version}";
            tools = map (p: "${p}/bin") (attrs.nativeBuildInputs or [ ]);
          }
        ) ''
          for dir in $tools; do PATH=$dir:$PATH; done
          cp -r "$src" "$NIX_BUILD_TOP/source"
          chmod -R u+w "$NIX_BUILD_TOP/source"
          cd "$NIX_BUILD_TOP/source"
          eval "$buildPhase"
        ''
        // {
          meta = attrs.meta or { };
        }
        // attrs.passthru or { };
    };

    # There is nothing to fetch from: what a fetcher yields is in the store before, or the build ends here.
    fetchurl =
      {
        url,
        hash,
        name ? baseNameOf url,
        recursiveHash ? false,
        downloadToTemp ? false,
        nativeBuildInputs ? [ ],
        postFetch ? "",
      }:
      build {
        inherit name postFetch;
        outputHash = hash;
        outputHashMode = if recursiveHash then "recursive" else "flat";
        tools = nativeBuildInputs;
      } ''echo "${url} is not in the store, and there is no network"; exit 1'';

    writeText =
      name: text:
      build {
        inherit name text;
        passAsFile = [ "text" ];
      } ''cp "$textPath" "$out"'';

    mkShellNoCC = { packages }: build { name = "shell"; inherit packages; } ''mkdir "$out"'';

    # Boots nothing: the nodes are evaluated, and the script is kept for whoever wants to read it.
    testers.runNixOSTest =
      test:
      pkgs.writeText "vm-test-${test.name}.json" (
        builtins.toJSON {
          inherit (test) testScript;
          nodes = lib.mapAttrs (
            _: module:
            (lib.nixosSystem {
              inherit system;
              modules = [ module ];
            }).config.systemd.services
          ) test.nodes;
        }
      )
      // {
        inherit (test) testScript;
      };
  }
  // lib.genAttrs [ "cacert" "coreutils" "git" "nixfmt-tree" "unzip" ] empty;
in
pkgs
