# Boots a node, and looks at what it does with systemd as it is on NixOS: nix build .#checks.x86_64-linux.vm
{ module }:
{
  name = "arch-node-agent";

  nodes.node = {
    imports = [ module ];
    services.archNodeAgent.enable = true;
  };

  testScript = ''
    node.wait_for_unit("arch-runnerd.socket")
    node.wait_for_unit("arch-node-agent.service")
    node.wait_for_open_port(7340, addr="127.0.0.1")

    for unit in ["arch-node-agent.service", "arch-runnerd.service"]:
        node.succeed(f"systemd-analyze security --threshold=15 {unit}")
    assert node.succeed("stat -c %U:%a /var/lib/arch-node-agent").strip() == "archagent:700"
    assert node.succeed("stat -c %U:%a /run/arch-runnerd/socket").strip() == "archagent:600"

    # Without a policy the node answers, and takes no jobs.
    node.succeed("arch jobs --json")
    node.fail("arch policy show")
  '';
}
