# A node, as small as it can be: nixosConfigurations.example of the flake, which the tests evaluate.
{
  services.archNodeAgent = {
    enable = true;
    listenAddress = "0.0.0.0:7340";
    openFirewall = true;
    signingKeyFile = "/run/keys/arch-node-agent";
    jobs.memoryMax = "75%";
    settings.operatorGroups = [ "wheel" ];
  };

  boot.isContainer = true;
  system.stateVersion = "26.05";
}
