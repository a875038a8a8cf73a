// Package guix_test holds the Guix channel of this repository (guix/, .guix-channel) to what it promises, with Guix itself in a Debian
// system of its own. Nothing is fetched: derivations are computed, and what only the network or the bootstrap could bring is not built. The
// package itself is built by TestExamples/arch-itself in package tests.
package guix_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/agent/unit"
	"arch.network/attest/digest"
	"arch.network/tests/debroot"
)

// fields says which field of arch-node-configuration takes a setting of the systemd units; none: why there is none.
var fields = map[string]string{
	"Bin": "package", "User": "user", "Policy": "policy-file", "TrustRoot": "trust-file", "Key": "key-file", "Listen": "listen", "Read": "read?", "Hosts": "hosts",
	"LedgerPolicy": "ledger-policy-file", "WitnessFor": "witness-for-file",
	"MemoryMax": "", // the Shepherd has no control groups
}

func TestGuix(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	m := debroot.Start(t, debroot.Options{Read: []string{root}, Write: []string{scratch}})
	m.StartGuix(t)
	g := &guix{m, root, scratch}
	said := g.check(t)
	t.Run("settings", func(t *testing.T) { testSettings(t, said) })
	t.Run("services", func(t *testing.T) { testServices(t, said) })
	t.Run("package", func(t *testing.T) { testPackage(t, g, said) })
	t.Run("system", func(t *testing.T) {
		if out := g.run(t, "guix", "system", "-L", "guix", "build", "-d", "--no-grafts", "tests/examples/node/system.scm"); !strings.HasSuffix(out, "-system.drv\n") {
			t.Errorf("the example is %q", out)
		}
	})
	t.Run("refused", func(t *testing.T) { testRefused(t, g) })
}

// guix runs Guix in the repository.
type guix struct {
	m             *debroot.Machine
	root, scratch string
}

func (g *guix) output(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := g.m.Command(t.Context(), append([]string{"sh", "-c", `cd "$0" && exec "$@"`, g.root}, args...)...)
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errout
	err = cmd.Run()
	return out.String(), errout.String(), err
}

func (g *guix) run(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, err := g.output(t, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, stderr)
	}
	return stdout
}

// script writes a file of Scheme and returns its name.
func (g *guix) script(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(g.scratch, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// check returns what testdata/check.scm says, by key.
func (g *guix) check(t *testing.T) map[string][]string {
	t.Helper()
	said := map[string][]string{}
	for line := range strings.Lines(g.run(t, "guix", "repl", "-L", "guix", "tests/guix/testdata/check.scm")) {
		values := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		key := values[0]
		if key == "warnings" || key == "account" {
			key, values = key+" "+values[1], values[1:]
		}
		said[key] = values[1:] // two of the keys have two parts
	}
	return said
}

// testSettings compares with the systemd units.
func testSettings(t *testing.T, said map[string][]string) {
	var known []string
	for f := range reflect.TypeFor[unit.Settings]().Fields() {
		field, ok := fields[f.Name]
		if !ok {
			t.Errorf("the units have the setting %s, and the Guix service does not", f.Name)
		}
		if field != "" {
			known = append(known, field)
		}
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(known)), slices.Sorted(slices.Values(said["fields"]))); diff != "" {
		t.Errorf("fields (-units +Guix):\n%s", diff)
	}
	for name, s := range map[string]unit.Settings{
		"default": {},
		"full": {
			User: "node", Policy: "/srv/policy.yaml", TrustRoot: "/srv/trust.yaml", Key: "/srv/key",
			Listen: []string{"0.0.0.0:7340", "[::]:7340"}, Read: true, Hosts: []string{"node.example"},
			LedgerPolicy: "/srv/ledger.policy", WitnessFor: "/srv/others.policy",
		},
		"example": {Listen: []string{"127.0.0.1:7340"}, Hosts: []string{"node.example"}},
	} {
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		agent, broker := unit.Agent(s), unit.Broker(s)
		user := agent.Properties("Service", "User")
		// There is no journal, and no systemd to ask for units.
		want := strings.Replace(arguments(t, agent), "--log-format journal", "--driver broker", 1)
		if diff := cmp.Diff(want, strings.Join(said["agent "+name], " ")); diff != "" {
			t.Errorf("%s: arguments of the agent (-units +Guix):\n%s", name, diff)
		}
		want = arguments(t, broker) + " --user " + user[0] + " --driver namespace"
		if diff := cmp.Diff(want, strings.Join(said["broker "+name], " ")); diff != "" {
			t.Errorf("%s: arguments of the broker (-units +Guix):\n%s", name, diff)
		}
		if diff := cmp.Diff(user, said["user "+name]); diff != "" {
			t.Errorf("%s: user (-units +Guix):\n%s", name, diff)
		}
		if diff := cmp.Diff(agent.Properties("Service", "LoadCredential"), []string{"key:" + said["key "+name][0]}); diff != "" {
			t.Errorf("%s: key (-units +Guix):\n%s", name, diff)
		}
	}
}

func arguments(t *testing.T, u unit.Unit) string {
	t.Helper()
	_, rest, ok := strings.Cut(u.Properties("Service", "ExecStart")[0], " ")
	if !ok {
		t.Fatalf("%s has no arguments", u.Name)
	}
	return rest
}

func testServices(t *testing.T, said map[string][]string) {
	for key, want := range map[string][]string{
		"requires arch-node-agent":        {"user-processes", "networking", "arch-runnerd"},
		"requires arch-runnerd":           {"user-processes"},
		"account archagent":               {"archagent", "/var/lib/arch-node-agent", "#t"},
		"account archrunner":              {"archrunner", "/var/lib/arch-runnerd", "#t"},
		"warnings guix/arch/packages.scm": {""},
		"warnings guix/arch/services.scm": {""},
	} {
		if diff := cmp.Diff(want, said[key]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	for name, u := range map[string]unit.Unit{"arch-node-agent": unit.Agent(unit.Settings{}), "arch-runnerd": unit.Broker(unit.Settings{})} {
		if file := said["service "+name]; len(file) != 1 || !strings.HasSuffix(file[0], ".drv") {
			t.Errorf("service %s is not lowered: %v", name, file)
		}
		start := strings.Join(said["start "+name], "")
		files := u.Properties("Service", "LimitNOFILE")[0]
		for _, part := range []string{"(nofile " + files + " " + files + ")", "(core 0 0)", "/var/log/" + name + ".log"} {
			if !strings.Contains(start, part) {
				t.Errorf("service %s has no %s: %s", name, part, start)
			}
		}
	}
	if start := strings.Join(said["start arch-node-agent"], ""); !strings.Contains(start, "#:file-creation-mask 18") { // octal 022: the wrapper's, see TestNode
		t.Errorf("the umask of the agent's wrapper: %s", start)
	}
	if socket := unit.BrokerSocket(unit.Settings{}).Properties("Socket", "ListenStream")[0]; !strings.Contains(strings.Join(said["start arch-runnerd"], ""), `"`+socket+`"`) {
		t.Errorf("the broker does not listen at %s", socket)
	}
	if said["service log-rotation"] == nil {
		t.Error("nothing rotates the log files of the example")
	}
}

// testPackage compares with what Nix has.
func testPackage(t *testing.T, g *guix, said map[string][]string) {
	var pins struct {
		Toolchain struct{ Version string }
		Modules   string
	}
	data, err := os.ReadFile("../../nix/pins.json")
	if err == nil {
		err = json.Unmarshal(data, &pins)
	}
	if err != nil {
		t.Fatal(err)
	}
	modules, err := digest.ParseSRI(pins.Modules)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"#t", "sha256", modules.Hex()}, said["modules"]); diff != "" {
		t.Errorf("modules (-nix/pins.json +Guix):\n%s", diff)
	}
	if said["toolchain"][0] != pins.Toolchain.Version {
		t.Errorf("the toolchain is %v, and that of nix/pins.json is %s", said["toolchain"], pins.Toolchain.Version)
	}
	for _, name := range []string{"package", "toolchain"} {
		if values := said[name]; len(values) == 0 || !strings.HasSuffix(values[len(values)-1], ".drv") {
			t.Errorf("%s is not lowered: %v", name, values)
		}
	}
	if out := g.run(t, "guix", "build", "-L", "guix", "-d", "--no-grafts", "arch"); strings.TrimSpace(out) != said["package"][2] {
		t.Errorf("`guix build arch` is about %q, not %v", out, said["package"])
	}
	if _, stderr, err := g.output(t, "guix", "lint", "-L", "guix", "--no-network", "arch"); err != nil || stderr != "" {
		t.Errorf("guix lint: %v\n%s", err, stderr)
	}
}

// testRefused makes mistakes, and wants to be told of them where they are.
func testRefused(t *testing.T, g *guix) {
	for name, tt := range map[string]struct{ text, err string }{
		"field": {`(listn '("127.0.0.1:7340"))`, "bad.scm:3:1: arch-node-configuration: extraneous field initializers (listn)"},
		"type":  {`(listen "127.0.0.1:7340")`, "bad.scm:4:10: error: invalid value \"127.0.0.1:7340\" for field 'listen'"},
	} {
		path := g.script(t, "bad.scm", "(use-modules (arch services))\n(define bad\n (arch-node-configuration\n  "+tt.text+"))\nbad\n")
		_, stderr, err := g.output(t, "guix", "repl", "-L", "guix", path)
		if err == nil || !strings.Contains(stderr, tt.err) {
			t.Errorf("%s: %v, want %q:\n%s", name, err, tt.err, stderr)
		}
	}
	// The same as package unit refuses, and keys that everybody could read.
	bad := []string{
		`(policy-file "policy.yaml")`, `(policy-file "/etc/../policy.yaml")`, `(trust-file "/etc//trust.yaml")`, `(policy-file "/")`,
		`(key-file (plain-file "key" "secret"))`, `(key-file "key")`, `(listen '(""))`, `(listen '("--read"))`, `(hosts '("a b"))`, `(user "")`,
		`(user "-x")`, `(ledger-policy-file "ledger.policy")`, `(witness-for-file #t)`, `(user "a\nb")`, `(read? "yes")`, `(package "arch")`,
	}
	var script strings.Builder
	script.WriteString(`(use-modules (arch services) (guix gexp))
(define-syntax-rule (refused? field ...)
  (format #t "~a~%" (catch #t (lambda () (arch-node-configuration field ...) #f) (const #t))))
`)
	for _, field := range bad {
		script.WriteString("(refused? " + field + ")\n")
	}
	got := strings.Fields(g.run(t, "guix", "repl", "-L", "guix", g.script(t, "several.scm", script.String()+"(refused?)\n")))
	if len(got) != len(bad)+1 {
		t.Fatalf("%d answers for %d mistakes: %v", len(got), len(bad), got)
	}
	for i, field := range bad {
		if got[i] != "#t" {
			t.Errorf("%s is accepted", field)
		}
	}
	if got[len(bad)] != "#f" {
		t.Error("the default is refused")
	}
}
