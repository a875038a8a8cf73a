# The options of NixOS that this repository's module may touch, with NixOS' names and types, and nothing behind them. One that NixOS
# does not have (systemd.services.<name>.readOnlyPaths, say) is an error here as it is there.
{ lib, packages }:
{ system, modules }:

let
  inherit (lib) mkOption types;
  option =
    type: default:
    mkOption {
      inherit type default;
    };
  set = options: option (types.attrsOf (types.submodule { inherit options; })) { };

  atom = types.oneOf [
    types.bool
    types.int
    types.str
    types.path
    types.package
  ];
  section = option (types.attrsOf (types.either atom (types.listOf atom))) { };
  strings = option (types.listOf types.str) [ ];

  # Of every unit.
  common = {
    enable = option types.bool true;
    description = option types.str "";
    unitConfig = section;
    restartTriggers = option (types.listOf types.anything) [ ];
  }
  // lib.genAttrs [ "after" "before" "wants" "requires" "wantedBy" ] (_: strings);

  nixos = {
    options = {
      assertions = option (types.listOf types.anything) [ ];
      warnings = strings;
      boot.isContainer = option types.bool false;
      system.stateVersion = option types.str "26.05";
      environment.systemPackages = option (types.listOf types.package) [ ];
      environment.etc = set {
        text = option (types.nullOr types.lines) null;
        source = option (types.nullOr types.path) null;
      };
      networking.firewall.allowedTCPPorts = option (types.listOf types.port) [ ];
      users.users = set {
        isSystemUser = option types.bool false;
        group = option types.str "";
        home = option types.path "/var/empty";
        createHome = option types.bool false;
      };
      users.groups = set { };
      systemd.services = set (
        common
        // {
          serviceConfig = section;
          environment = option (types.attrsOf (types.nullOr types.str)) { };
          path = option (types.listOf types.package) [ ];
        }
      );
      systemd.sockets = set (common // { socketConfig = section; });
      systemd.slices = set (common // { sliceConfig = section; });
    };
  };

  evaluated = lib.evalModules {
    specialArgs.pkgs = packages.${system};
    modules = [ nixos ] ++ modules;
  };
  failed = lib.filter (a: !a.assertion) evaluated.config.assertions;
  config =
    if failed == [ ] then
      evaluated.config
    else
      throw "\nFailed assertions:\n${lib.concatStringsSep "\n" (map (a: "- ${a.message}") failed)}";
in
{
  config = config // {
    system = config.system // {
      build.toplevel = packages.${system}.writeText "nixos.json" (
        builtins.toJSON { inherit (config) systemd users networking; }
      );
    };
  };
}
