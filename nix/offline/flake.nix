{
  # A stand-in for nixpkgs, for tests without a network: what this repository's flake, package and module use of nixpkgs and NixOS, written
  # for this purpose, and nothing else. What is not here is an error, so mistakes in the flake show; what works here is likely to
  # work with nixpkgs, and no more than that.
  #
  #   mkdir nix/offline/bin; cp /bin/busybox nix/offline/bin       # static; it is the shell and the tools of every builder
  #   nix flake check --no-build --no-write-lock-file --override-input nixpkgs path:./nix/offline
  #
  # Builders have no network, so fixed-output derivations must be in the store already: tests/nix puts them there.
  description = "Stand-in for nixpkgs, for tests without a network";

  outputs =
    { self }:
    let
      modules = import ./modules.nix { lib = plain; };
      plain = import ./lib.nix;
      base = plain // modules;
      packages = plain.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
        system: import ./pkgs.nix { inherit lib system; }
      );
      lib = base // {
        nixosSystem = import ./nixos-system.nix {
          lib = base;
          inherit packages;
        };
      };
    in
    {
      inherit lib;
      legacyPackages = packages;
    };
}
