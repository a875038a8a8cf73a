final: prev: {
  arch-network = final.callPackage ./package.nix { };
}
