# The skeleton that this project was asked to begin with, with its syntax repaired: what NixOS says to it, ours must say, too.
{ config, lib, pkgs, ... }: let
 cfg = config.services.archNodeAgent;
 types = lib.types;
in {
 options.services.archNodeAgent = {
   enable = lib.mkEnableOption "Arch Network node agent";
   package = lib.mkOption {
     type = types.package;
     default = pkgs.arch-node-agent or (pkgs.callPackage ./pkgs/arch-node-agent { });
     description = "The arch-node-agent package providing the agent binary.";
   };
   listenAddress = lib.mkOption { type = types.str; default = "0.0.0.0:7340"; description = "Listen address for the node agent."; };
   policyFile = lib.mkOption { type = types.path; default = "/etc/arch/policy.yaml"; description = "Path"; };
 };
 config = lib.mkIf cfg.enable {
   users.users.archagent = { isSystemUser = true; group = "archagent"; home = "/var/lib/archagent"; createHome = true; };
   users.groups.archagent = {};
   systemd.services.arch-node-agent = {
     description = "Arch Network Node Agent";
     after = [ "network-online.target" ]; wants = [ "network-online.target" ]; wantedBy = [ "multi-user.target" ];
     serviceConfig = { User = "archagent"; ProtectSystem = "strict"; MemoryDenyWriteExecute = true;
       ExecStart = "${cfg.package}/bin/arch-node-agent --listen ${cfg.listenAddress} --policy ${cfg.policyFile}"; Restart = "on-failure"; RestartSec = "5s"; };
     readOnlyPaths = [ "/" ];
     readWritePaths = [ "/var/lib/archagent" ];
   };
   environment.etc."arch/policy.yaml".source = cfg.policyFile;
 };
}
