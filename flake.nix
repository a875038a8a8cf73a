{
  description = "arch: reproducible builds with signed receipts, and jobs that nobody has to trust";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      eachSystem = f: lib.genAttrs systems (system: f system nixpkgs.legacyPackages.${system});
      app = system: program: description: {
        type = "app";
        program = "${self.packages.${system}.arch}/bin/${program}";
        meta = { inherit description; };
      };
    in
    {
      # One derivation holds all three programs: they share nearly all that is compiled.
      packages = eachSystem (
        system: pkgs: rec {
          arch = pkgs.callPackage ./nix/package.nix { };
          agent = arch;
          runnerd = arch;
          default = arch;
        }
      );

      apps = eachSystem (
        system: _: rec {
          arch = app system "arch" "Build, rebuild and verify artifacts; run and submit jobs";
          agent = app system "arch-node-agent" "Run a node: take, run and record signed jobs";
          runnerd = app system "arch-runnerd" "Run signed jobs for an agent";
          default = arch;
        }
      );

      overlays.default = import ./nix/overlay.nix;

      nixosModules.default =
        { lib, pkgs, ... }:
        {
          imports = [ ./nix/module.nix ];
          services.archNodeAgent.package =
            lib.mkDefault
              self.packages.${pkgs.stdenv.hostPlatform.system}.agent;
        };

      nixosConfigurations.example = lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          self.nixosModules.default
          ./nix/example.nix
        ];
      };

      checks = eachSystem (
        system: pkgs: {
          package = self.packages.${system}.arch; # `nix flake check` does not build packages by itself
          vm = pkgs.testers.runNixOSTest (import ./nix/vm-test.nix { module = self.nixosModules.default; });
        }
      );

      devShells = eachSystem (
        _: pkgs: {
          default = pkgs.mkShellNoCC {
            packages = [
              (pkgs.callPackage ./nix/toolchain.nix { })
              pkgs.git
            ];
          };
        }
      );

      formatter = eachSystem (_: pkgs: pkgs.nixfmt-tree);
    };
}
