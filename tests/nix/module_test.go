package nix

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/agent/unit"
)

// evaluate returns what a module makes of the settings of services.archNodeAgent, written in Nix, with the stand-in for NixOS.
func (m *machine) evaluate(t *testing.T, module, settings string) outcome {
	t.Helper()
	expr := fmt.Sprintf(`
let
  standin = (import %[1]s/flake.nix).outputs { self = { }; };
  config = (standin.lib.nixosSystem {
    system = "x86_64-linux";
    modules = [
      %[2]s
      ({ lib, pkgs, ... }: { services.archNodeAgent = { enable = true; package = lib.mkDefault (pkgs.writeText "arch" ""); } // %[3]s; })
    ];
  }).config;
in {
  inherit (config.systemd) services sockets slices;
  inherit (config.networking.firewall) allowedTCPPorts;
  package = "${config.services.archNodeAgent.package}";
}`, m.nixpkgs, module, settings)
	return m.try(t, "nix-instantiate", "--eval", "--strict", "--json", "--store", m.store(), "-E", expr)
}

// evaluated is what evaluate prints.
type evaluated struct {
	Services map[string]struct {
		UnitConfig, ServiceConfig map[string]any
		WantedBy                  []string
	}
	Sockets map[string]struct {
		UnitConfig, SocketConfig map[string]any
		WantedBy                 []string
	}
	Slices          map[string]struct{ SliceConfig map[string]any }
	AllowedTCPPorts []int
	Package         string
}

// lines renders a section as NixOS does: a list is a key that is there several times.
func lines(section map[string]any) []string {
	var out []string
	for name, value := range section {
		values, isList := value.([]any)
		if !isList {
			values = []any{value}
		}
		for _, v := range values {
			out = append(out, fmt.Sprintf("%s=%v", name, v))
		}
	}
	slices.Sort(out)
	return out
}

// TestModule compares the units that the module makes with those of package unit for the same settings.
func TestModule(t *testing.T) { everyNix(t, testModule) }

func testModule(t *testing.T, m *machine) {
	module := filepath.Join(m.flake, "nix/module.nix")
	for _, tt := range []struct {
		name, settings string
		want           unit.Settings
		more           string // arguments for which package unit has no setting
		broker         string
		noKey          bool
		ports          []int
		slice          map[string]any
	}{
		{name: "nothing", settings: `{ }`, want: unit.Settings{Listen: []string{"127.0.0.1:7340"}}, noKey: true},
		{name: "only the socket", settings: `{ listenAddress = null; signingKeyFile = "/run/keys/node"; }`, want: unit.Settings{Key: "/run/keys/node"}},
		{
			name: "everything",
			settings: `{
				listenAddress = "[::]:7341"; openFirewall = true; policyFile = "/srv/policy.yaml"; trustRootFile = "/srv/trust.yaml"; signingKeyFile = "/k";
				memoryMax = "512M"; jobs = { memoryMax = "75%"; cpuQuota = "400%"; tasksMax = 4096; };
				settings = {
					hosts = [ "node.example" "n" ]; read = true; operators = [ "alice" ]; operatorGroups = [ "wheel" ]; names = [ "pool:a" ];
					content = [ "/srv/content" ]; offline = true; slots = 3;
					ledgerPolicy = "/srv/ledger.policy"; witnessFor = "/srv/others";
				};
			}`,
			want: unit.Settings{
				Listen: []string{"[::]:7341"}, Policy: "/srv/policy.yaml", TrustRoot: "/srv/trust.yaml", Key: "/k", MemoryMax: "512M",
				Hosts: []string{"node.example", "n"}, Read: true, LedgerPolicy: "/srv/ledger.policy", WitnessFor: "/srv/others",
			},
			more:   " --operator alice --operator-group wheel --name pool:a --content /srv/content --offline --slots 3",
			broker: " --name pool:a", ports: []int{7341},
			slice: map[string]any{"MemoryMax": "75%", "CPUQuota": "400%", "TasksMax": 4096.},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := m.evaluate(t, module, tt.settings)
			if out.err != nil {
				t.Fatalf("%v\n%s", out.err, out.stderr)
			}
			var got evaluated
			if err := json.Unmarshal([]byte(out.stdout), &got); err != nil {
				t.Fatal(err)
			}
			tt.want.Bin = got.Package + "/bin"
			dir := t.TempDir()
			for _, u := range unit.Units(tt.want) {
				name, kind, _ := strings.Cut(u.Name, ".")
				sections := map[string]map[string]any{}
				var wantedBy []string
				if kind == "service" {
					s := got.Services[name]
					sections["Unit"], sections["Service"], wantedBy = s.UnitConfig, s.ServiceConfig, s.WantedBy
				} else {
					s := got.Sockets[name]
					sections["Unit"], sections["Socket"], wantedBy = s.UnitConfig, s.SocketConfig, s.WantedBy
				}
				for _, section := range u.Sections {
					var want []string
					for _, p := range section.Properties {
						switch {
						case p.Name == "ExecStart" && name == "arch-runnerd":
							p.Value += tt.broker
						case p.Name == "ExecStart":
							p.Value += tt.more
							if tt.noKey {
								p.Value = strings.Replace(p.Value, " --key credential:key", "", 1)
							}
						case p.Name == "LoadCredential" && tt.noKey:
							continue
						case p.Name == "ExecReload": // units of NixOS have no search path
							p.Value = fmt.Sprint(sections["Service"]["ExecReload"])
							if !strings.HasPrefix(p.Value, "/nix/store/") || !strings.HasSuffix(p.Value, "/bin/kill -HUP $MAINPID") {
								t.Errorf("ExecReload=%s", p.Value)
							}
						}
						want = append(want, p.Name+"="+p.Value)
					}
					if section.Name == "Install" {
						if diff := cmp.Diff(u.Properties("Install", "WantedBy"), wantedBy); diff != "" {
							t.Errorf("%s: wantedBy (-want +got):\n%s", u.Name, diff)
						}
						continue
					}
					slices.Sort(want)
					if diff := cmp.Diff(want, lines(sections[section.Name])); diff != "" {
						t.Errorf("%s [%s] (-agent/unit +module):\n%s", u.Name, section.Name, diff)
					}
				}
				if kind == "service" {
					exposure(t, filepath.Join(dir, u.Name), sections)
				}
			}
			if diff := cmp.Diff(tt.ports, got.AllowedTCPPorts); diff != "" && len(tt.ports)+len(got.AllowedTCPPorts) > 0 {
				t.Errorf("open ports (-want +got):\n%s", diff)
			}
			if slice := got.Slices["arch-jobs"].SliceConfig; !maps.Equal(tt.slice, slice) {
				t.Errorf("slice of the jobs: %v, want %v", slice, tt.slice)
			}
		})
	}
}

// exposure has systemd say how exposed a service is.
func exposure(t *testing.T, path string, sections map[string]map[string]any) {
	t.Helper()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skipf("cannot run here: there is no systemd-analyze: %v", err)
	}
	var text strings.Builder
	for name, section := range sections {
		fmt.Fprintf(&text, "[%s]\n%s\n", name, strings.Join(lines(section), "\n"))
	}
	write(t, path, []byte(text.String()), 0o644)
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=15", "--no-pager", path).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", filepath.Base(path), err, out)
	}
}

// TestModuleFiles wants documents that are written in Nix, or lie beside the configuration, to be in the store.
func TestModuleFiles(t *testing.T) { everyNix(t, testModuleFiles) }

func testModuleFiles(t *testing.T, m *machine) {
	write(t, filepath.Join(m.dir, "policy.yaml"), []byte("kind: Policy\n"), 0o644)
	for settings, want := range map[string]string{
		`{ policyFile = ` + m.dir + `/policy.yaml; }`: "-policy.yaml --trust /etc/arch/trust.yaml",
		`{ policy = "kind: Policy"; }`:                "-arch-policy.yaml --trust /etc/arch/trust.yaml",
		`{ trustRoot = "kind: TrustRoot"; }`:          "-arch-trust.yaml",
	} {
		out := m.evaluate(t, filepath.Join(m.flake, "nix/module.nix"), settings)
		var got evaluated
		if err := json.Unmarshal([]byte(out.stdout), &got); err != nil {
			t.Fatalf("%s: %v\n%s", settings, out.err, out.stderr)
		}
		for _, name := range []string{"arch-node-agent", "arch-runnerd"} {
			if start := fmt.Sprint(got.Services[name].ServiceConfig["ExecStart"]); !strings.Contains(start, want) && name == "arch-node-agent" || !strings.Contains(start, " /nix/store/") {
				t.Errorf("%s: %s: ExecStart=%s", settings, name, start)
			}
		}
	}
}

// TestModuleRefuses holds what is a mistake to be an error that says so.
func TestModuleRefuses(t *testing.T) { everyNix(t, testModuleRefuses) }

func testModuleRefuses(t *testing.T, m *machine) {
	own := filepath.Join(m.flake, "nix/module.nix")
	mission, err := filepath.Abs("testdata/mission-module.nix")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, module, settings, want string }{
		{"the skeleton of the mission", mission, `{ }`, "systemd.services.arch-node-agent.readOnlyPaths' does not exist"},
		{"an option that is not there", own, `{ listen = "127.0.0.1:1"; }`, "services.archNodeAgent.listen' does not exist"},
		{"a setting that is not there", own, `{ settings.slot = 3; }`, "services.archNodeAgent.settings.slot' does not exist"},
		{"a wrong type", own, `{ settings.slots = "3"; }`, "services.archNodeAgent.settings.slots' is not of type"},
		{"an address without a port", own, `{ listenAddress = "127.0.0.1"; }`, "services.archNodeAgent.listenAddress' is not of type"},
		{"a port that no address has", own, `{ listenAddress = "127.0.0.1:70000"; }`, "listenAddress has a port that is not from 1 to 65535"},
		{"a relative policy", own, `{ policyFile = "policy.yaml"; }`, "services.archNodeAgent.policyFile' is not of type"},
		{"two values", own, `{ listenAddress = lib.mkMerge [ "127.0.0.1:1" "127.0.0.1:2" ]; }`, "listenAddress' has conflicting definition values"},
		{"a key in the store", own, `{ signingKeyFile = "${builtins.storeDir}/x"; }`, "signingKeyFile lies in the Nix store"},
		{"a key by a Nix path", own, `{ signingKeyFile = /run/key; }`, "services.archNodeAgent.signingKeyFile' is not of type"},
		{"a firewall that is open for nobody", own, `{ openFirewall = true; }`, "openFirewall opens a port on which only this machine is answered"},
		{"a policy twice", own, `{ policy = "x"; policyFile = "/etc/p"; }`, "policy and policyFile are both set"},
		{"a trust root twice", own, `{ trustRoot = "x"; trustRootFile = "/etc/t"; }`, "trustRoot and trustRootFile are both set"},
		{"a space that would be an argument", own, `{ settings.names = [ "a --driver namespace" ]; }`, "a character that unit files read in their own way"},
		{"a name that is a flag", own, `{ settings.operators = [ "--read" ]; }`, "begins with -"},
		{"a specifier of systemd", own, `{ policyFile = "/etc/%h"; }`, "a character that unit files read in their own way"},
		{"a line of a unit", own, `{ memoryMax = "1G\nExecStartPre=/bin/sh"; }`, "services.archNodeAgent.memoryMax' is not of type"},
		{"no limit", own, `{ jobs.cpuQuota = "all"; }`, "services.archNodeAgent.jobs.cpuQuota' is not of type"},
	} {
		if got := m.evaluate(t, tt.module, tt.settings); got.err == nil || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%s: %v, want an error with %q\n%s%s", tt.name, got.err, tt.want, got.stdout, got.stderr)
		}
	}
}

// TestVM reads the script of the test that boots a node: Python parses it. Booting needs nixpkgs.
func TestVM(t *testing.T) { everyNix(t, testVM) }

func testVM(t *testing.T, m *machine) {
	script := m.run(t, m.nix("eval", "--raw", ".#checks.x86_64-linux.vm.testScript")...)
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("cannot run here: there is no python3: " + err.Error())
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", "import ast, sys; ast.parse(sys.stdin.read())")
	cmd.Stdin, cmd.Env = strings.NewReader(script), os.Environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, script)
	}
}
