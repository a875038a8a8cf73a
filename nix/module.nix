# services.archNodeAgent: a node's agent, and beside it the broker that has systemd start the jobs.
#
# What the units say is in units.json, which package agent/unit of this repository writes: the module fills in what differs between
# machines, and a test compares the result with what that package renders for the same settings.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.archNodeAgent;
  inherit (lib) mkOption types;

  user = "archagent";
  units = lib.importJSON ./units.json;

  # Interpolated, not by toString: a Nix path becomes a store path that the system depends on.
  policyFile = "${cfg.policyFile}";
  trustRootFile = "${cfg.trustRootFile}";

  fill =
    lib.replaceStrings
      [
        "/@bin@"
        "/@policy@"
        "/@trust@"
        "/@key@"
        "@memory@"
      ]
      [
        "${cfg.package}/bin"
        policyFile
        trustRootFile
        (toString cfg.signingKeyFile)
        cfg.memoryMax
      ];
  section =
    unit: name:
    lib.mapAttrs (_: value: if lib.isList value then map fill value else fill value) (
      units.${unit}.${name} or { }
    );

  flag = name: value: [
    "--${name}"
    value
  ];
  flags = name: lib.concatMap (flag name);
  content = map (directory: "${directory}") cfg.settings.content;
  names = flags "name" cfg.settings.names;
  given = path: lib.optional (path != null) "${path}";
  ledgerPolicy = given cfg.settings.ledgerPolicy;
  witnessFor = given cfg.settings.witnessFor;

  # In the order of package agent/unit, then what that package has no setting for.
  agentArguments =
    lib.optionals (cfg.listenAddress != null) (flag "listen" cfg.listenAddress)
    ++ flags "host" cfg.settings.hosts
    ++ lib.optional cfg.settings.read "--read"
    ++ lib.concatMap (flag "ledger-policy") ledgerPolicy
    ++ lib.concatMap (flag "witness-for") witnessFor
    ++ flags "operator" cfg.settings.operators
    ++ flags "operator-group" cfg.settings.operatorGroups
    ++ names
    ++ flags "content" content
    ++ lib.optional cfg.settings.offline "--offline"
    ++ lib.optionals (cfg.settings.slots != null) (flag "slots" (toString cfg.settings.slots));

  # Whatever ends up in a unit file, where spaces, quotes and % $ ; \ would be read in another way. listenAddress has its own type.
  words =
    [
      policyFile
      trustRootFile
    ]
    ++ lib.optional (cfg.signingKeyFile != null) cfg.signingKeyFile
    ++ cfg.settings.operators
    ++ cfg.settings.operatorGroups
    ++ cfg.settings.names
    ++ content
    ++ ledgerPolicy
    ++ witnessFor;

  policyText = pkgs.writeText "arch-policy.yaml" cfg.policy;
  trustRootText = pkgs.writeText "arch-trust.yaml" cfg.trustRoot;

  command = unit: arguments: lib.concatStringsSep " " ([ (section unit "Service").ExecStart ] ++ arguments);
  agentCommand =
    let
      full = command "arch-node-agent.service" agentArguments;
    in
    if cfg.signingKeyFile == null then
      lib.replaceStrings [ " --key credential:key" ] [ "" ] full
    else
      full;
  brokerCommand = command "arch-runnerd.service" names;

  service =
    unit: own:
    {
      unitConfig = section unit "Unit";
      wantedBy = [ (section unit "Install").WantedBy ];
      serviceConfig = section unit "Service" // own;
    };
  socket = unit: {
    unitConfig = section unit "Unit";
    wantedBy = [ (section unit "Install").WantedBy ];
    socketConfig = section unit "Socket";
  };

  portText = lib.last (lib.splitString ":" cfg.listenAddress);
  port = lib.toInt portText;
  loopback =
    cfg.listenAddress == null
    || lib.match "(127\\..*|localhost|\\[::1])" (
      lib.removeSuffix ":${portText}" cfg.listenAddress
    ) != null;
in
{
  options.services.archNodeAgent = {
    enable = lib.mkEnableOption "the arch node agent, and the broker that has its jobs run";

    package = lib.mkPackageOption pkgs "arch-network" { };

    listenAddress = mkOption {
      type = types.nullOr (types.strMatching "([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+]):[0-9]{1,5}");
      default = "127.0.0.1:7340";
      example = "0.0.0.0:7340";
      description = ''
        Where the agent answers over HTTP, HOST:PORT; null: only on its socket, /run/arch-node-agent/socket. Over HTTP nobody changes
        anything but by signed documents, and nobody reads unless settings.read is set.
      '';
    };

    openFirewall = lib.mkEnableOption "opening the port of listenAddress in the firewall";

    policyFile = mkOption {
      type = types.path;
      default = "/etc/arch/policy.yaml";
      example = lib.literalExpression "./policy.yaml";
      description = ''
        The signed policy. A Nix path is copied to the store; a string is read when the agent starts, and again when it changes.
        Without a policy that verifies, the agent runs, says so, and takes no jobs.
      '';
    };

    policy = mkOption {
      type = types.nullOr types.lines;
      default = null;
      description = "The signed policy itself, in place of policyFile.";
    };

    trustRootFile = mkOption {
      type = types.path;
      default = "/etc/arch/trust.yaml";
      example = lib.literalExpression "./trust.yaml";
      description = "The trust root: who may sign policies and jobs. It is a file like policyFile.";
    };

    trustRoot = mkOption {
      type = types.nullOr types.lines;
      default = null;
      description = "The trust root itself, in place of trustRootFile.";
    };

    signingKeyFile = mkOption {
      type = types.nullOr (types.strMatching "/.+");
      default = null;
      example = "/run/keys/arch-node-agent";
      description = ''
        Where the node's private key lies when the agent is started; systemd hands it over as a credential. It must not be in the
        store, which everybody can read. null: the agent makes itself a key, in its state directory.
      '';
    };

    memoryMax = mkOption {
      type = types.strMatching "[1-9][0-9]*[KMGT]?";
      default = "1G";
      description = "Most memory of the agent itself, without the jobs.";
    };

    jobs = {
      memoryMax = mkOption {
        type = types.nullOr (types.strMatching "[1-9][0-9]*[KMGT%]?");
        default = null;
        example = "75%";
        description = "Most memory of all jobs together; null: no limit but that of each job.";
      };
      cpuQuota = mkOption {
        type = types.nullOr (types.strMatching "[1-9][0-9]*%");
        default = null;
        example = "400%";
        description = "Most processor time of all jobs together, 100% for each processor; null: no limit.";
      };
      tasksMax = mkOption {
        type = types.nullOr (types.ints.between 1 4194304);
        default = null;
        description = "Most processes and threads of all jobs together; null: no limit.";
      };
    };

    settings = mkOption {
      default = { };
      description = "Further settings of the agent; `arch-node-agent --help` tells more of each.";
      type = types.submodule {
        options = {
          hosts = mkOption {
            type = types.listOf (types.strMatching "[A-Za-z0-9._-]+");
            default = [ ];
            example = [ "node.example" ];
            description = "Names by which the node is called over HTTP, beside its addresses.";
          };
          read = mkOption {
            type = types.bool;
            default = false;
            description = "Whether everybody may read who can connect.";
          };
          operators = mkOption {
            type = types.listOf types.str;
            default = [ ];
            description = "Users of this machine who operate the node, beside root.";
          };
          operatorGroups = mkOption {
            type = types.listOf types.str;
            default = [ ];
            example = [ "wheel" ];
            description = "Groups whose members operate the node.";
          };
          names = mkOption {
            type = types.listOf types.str;
            default = [ ];
            description = "Names of this node in the audience of jobs, beside its identity. The broker knows them, too.";
          };
          content = mkOption {
            type = types.listOf types.path;
            default = [ ];
            description = "Directories where what jobs pin is looked for before it is fetched.";
          };
          offline = mkOption {
            type = types.bool;
            default = false;
            description = "Whether nothing is fetched.";
          };
          slots = mkOption {
            type = types.nullOr (types.ints.between 1 4096);
            default = null;
            description = "Executions at one time, as far as their resources fit; null: four for each processor.";
          };
          ledgerPolicy = mkOption {
            type = types.nullOr types.path;
            default = null;
            example = lib.literalExpression "./ledger.policy";
            description = "How others verify the node's ledger (C2SP tlog-policy); the witnesses that it names are asked to cosign it. null: nobody is asked.";
          };
          witnessFor = mkOption {
            type = types.nullOr types.path;
            default = null;
            description = "The ledgers of others that this node cosigns (C2SP tlog-policy); null: none.";
          };
        };
      };
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.signingKeyFile == null || !(lib.hasPrefix builtins.storeDir cfg.signingKeyFile);
        message = "services.archNodeAgent.signingKeyFile lies in the Nix store, where everybody can read it: name a file that is there at run time";
      }
      {
        assertion = !(cfg.openFirewall && loopback);
        message = "services.archNodeAgent.openFirewall opens a port on which only this machine is answered: set listenAddress, for example to \"0.0.0.0:7340\"";
      }
      {
        assertion = cfg.listenAddress == null || (port > 0 && port < 65536);
        message = "services.archNodeAgent.listenAddress has a port that is not from 1 to 65535";
      }
      {
        assertion = cfg.policy == null || cfg.policyFile == policyText;
        message = "services.archNodeAgent.policy and policyFile are both set: leave out one of them";
      }
      {
        assertion = cfg.trustRoot == null || cfg.trustRootFile == trustRootText;
        message = "services.archNodeAgent.trustRoot and trustRootFile are both set: leave out one of them";
      }
      {
        assertion = lib.all (word: lib.match "[A-Za-z0-9./_@+:=,][A-Za-z0-9./_@+:=,-]*" word != null) words;
        message = "services.archNodeAgent: a path or a name is empty, begins with - or holds a character that unit files read in their own way";
      }
    ];

    services.archNodeAgent.policyFile = lib.mkIf (cfg.policy != null) (lib.mkDefault policyText);
    services.archNodeAgent.trustRootFile = lib.mkIf (cfg.trustRoot != null) (lib.mkDefault trustRootText);

    environment.systemPackages = [ cfg.package ]; # arch submit, arch why, arch ledger
    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ port ];

    users.users.${user} = {
      isSystemUser = true;
      group = user;
    };
    users.groups.${user} = { };

    systemd.services.arch-node-agent = service "arch-node-agent.service" {
      ExecStart = agentCommand;
      ExecReload = "${lib.getExe' pkgs.coreutils "kill"} -HUP $MAINPID";
      LoadCredential = lib.optional (
        cfg.signingKeyFile != null
      ) (section "arch-node-agent.service" "Service").LoadCredential;
    };
    systemd.services.arch-runnerd = service "arch-runnerd.service" { ExecStart = brokerCommand; };
    systemd.sockets.arch-node-agent = socket "arch-node-agent.socket";
    systemd.sockets.arch-runnerd = socket "arch-runnerd.socket";

    systemd.slices.arch-jobs.sliceConfig = lib.filterAttrs (_: value: value != null) {
      MemoryMax = cfg.jobs.memoryMax;
      CPUQuota = cfg.jobs.cpuQuota;
      TasksMax = cfg.jobs.tasksMax;
    };
  };
}
