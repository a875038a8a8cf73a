// Package tests holds the checks that look at the repository as a whole.
package tests

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "arch.network/"

// importRules says which packages of this module may import which, in the form of depsRules in
// $GOROOT/src/go/build/deps_test.go.
//
//	a < b    b, and everything above b, may import a
//	a !< b   b must not depend on a, however long the way
//
// A package may always import the standard library. A package that no line names fails the test: place it here first,
// in the lowest layer that works.
const importRules = `
	# What is said, and who said it. A verifier needs these alone, and they never touch a network.
	NONE < attest/digest < attest/digest/nar;
	attest/digest < attest/canonical < attest/identity < attest/dsse < attest/manifest < attest/quorum, attest/docfile < attest;
	attest/digest < attest/digest/storepath < attest;
	attest/digest, attest/identity < attest/ledger;
	NONE < attest/ledger/durable < attest/identity;
	attest/ledger, attest/ledger/durable < attest/ledger/notekey;
	attest/ledger/durable < attest/ledger/journal;
	attest, attest/ledger/notekey, attest/ledger/journal < attest/ledger/sequencer;
	attest/ledger/sequencer < attest/ledger/hammer;
	attest/ledger < attest/ledger/tilehttp;
	attest/ledger/notekey < attest/ledger/witness;

	# Confined execution: documents and verification, but no keys, no network, no store.
	attest, attest/digest/nar < runner < runner/meter < runner/namespace < runner/runnertest;
	attest/digest < runner/wasm/binary < runner/gas;
	runner, runner/gas, runner/program < runner/wasm/wasi < runner/wasm < runner/checkpoint;
	attest/digest/nar, attest/digest/storepath < runner/closure/daemon;
	runner < runner/cdi, runner/egress, runner/closure, runner/program;
	runner/closure/daemon < runner/closure;
	builder/guix/sexp < builder/guix/signature;
	attest/digest/nar, builder/guix/signature < builder/guix/archive;
	runner/egress < runner/namespace, runner/systemd;
	runner/namespace < runner/namespace/first;
	attest/digest, builder/source/unpack < builder/source/imagespec;
	builder/source/imagespec, runner < runner/oci;
	runner/cdi, runner/wasm, runner/oci, runner/closure < runner/job;
	runner/meter, runner/cdi < runner/systemd;
	runner/job, runner/systemd, runner/checkpoint, attest/docfile < runner/broker;

	# Making artifacts. The contract of the runner, never a driver.
	attest/digest/nar < builder/store;
	attest/digest/nar < builder/diff;
	attest, attest/digest/nar < builder/artifact, builder/publish;
	builder/source/unpack < builder/source, builder/diff;
	builder/source/imagespec < builder/source;
	attest, builder/store < builder/source;
	runner, builder/artifact, builder/diff, builder/source < builder;
	attest/digest/storepath < builder/nix/drv;
	builder, builder/nix/drv, runner/closure/daemon < builder/derivation < builder/nix;
	builder/derivation < builder/guix;

	# What others have built: binary caches of Nix and Guix. The formats need no network.
	attest, attest/digest/nar, attest/digest/storepath, builder/source/unpack < builder/binarycache;
	builder/binarycache < builder/nix/realisation;
	attest, builder/nix/realisation < builder/binarycache/cacheclient;
	builder/nix/realisation, builder/store, runner/closure < builder/binarycache/cacheserver;
	attest/ledger/durable, builder/binarycache < builder/binarycache/receiptdir;
	builder/binarycache, builder/guix/signature < builder/vouch;
	builder/binarycache/cacheclient, builder/diff, builder/store, builder/vouch < builder/challenge;

	# One node: what a job's life is, and what can be asked.
	attest < agent < agent/scheduler, agent/validation, agent/nodetest;
	NONE < agent/disk < agent/disk/disktest;
	NONE < agent/unit;
	attest/manifest, runner/cdi, runner/meter < agent/inventory;
	attest, attest/docfile, agent/disk < agent/policy;
	agent/policy, runner/job < agent/admission;
	agent/admission, agent/disk < agent/replay;
	agent/admission, builder/binarycache, builder/source, builder/store < agent/evidence;
	builder/source, runner/job < agent/content;
	agent, agent/content, builder/diff < agent/archive;
	agent/scheduler, agent/validation, agent/archive, agent/content, runner/broker, attest/ledger/journal < agent/executor;
	agent < agent/control/wire < agent/control/client;
	attest/ledger < agent/control/logview;
	agent/control/wire, agent/control/logview < agent/control;
	agent, agent/control/logview < agent/control/dashboard;
	agent/executor, agent/replay, agent/evidence, attest/ledger/sequencer, attest/ledger/witness < agent/node;

	# What the programs have in common: settings, and manual pages.
	attest/docfile < cmd/config;
	NONE < cmd/manual, cmd/release;
	cmd/config, cmd/manual, cmd/release < cmd/arch, cmd/arch-node-agent, cmd/arch-runnerd;

	# The commands choose drivers and fetchers.
	builder, builder/guix, builder/nix, builder/publish, runner/namespace, runner/broker, runner/egress, runner/checkpoint, runner/program < cmd/arch;
	attest/ledger/hammer, attest/ledger/tilehttp, attest/ledger/witness < cmd/arch;
	builder/binarycache/cacheserver, builder/binarycache/receiptdir, builder/challenge < cmd/arch;
	agent/evidence, agent/content, agent/archive, agent/control/client < cmd/arch;
	runner/namespace, runner/broker, runner/egress < cmd/arch-runnerd;
	agent/node, agent/inventory, agent/control, agent/control/client, agent/control/dashboard, attest/ledger/tilehttp, runner/namespace, runner/egress < cmd/arch-node-agent;

	builder !< runner;
	runner/namespace !< builder;
	builder/store !< runner/job, runner/broker, runner/systemd, runner/oci, runner/closure;
	github.com/transparency-dev/tessera !< attest, attest/ledger, attest/ledger/notekey, attest/ledger/tilehttp, attest/ledger/witness;
	net/http !< attest, attest/ledger, attest/ledger/durable, attest/ledger/notekey, attest/digest, attest/digest/nar, attest/canonical, attest/dsse, attest/manifest, attest/quorum, runner, runner/namespace;
`

// doors names the packages through which each large library enters.
var doors = map[string][]string{
	"github.com/tetratelabs/wazero":                     {"runner/wasm", "runner/wasm/wasi"},
	"github.com/coreos/go-systemd/v22":                  {"runner/systemd", "runner/broker", "cmd/arch-node-agent"},
	"github.com/godbus/dbus/v5":                         {"runner/systemd"},
	"github.com/google/go-containerregistry":            {"builder/source", "builder/publish"},
	"github.com/nix-community/go-nix":                   {"attest/digest", "attest/digest/storepath", "runner/closure/daemon"},
	"github.com/in-toto/in-toto-golang":                 {"attest"},
	"github.com/secure-systems-lab/go-securesystemslib": {"attest"},
	"github.com/ProtonMail/go-crypto":                   {"attest/identity"},
	"github.com/cloudflare/circl":                       {"attest/identity"},
	"filippo.io/age":                                    {"attest/identity"},
	"filippo.io/edwards25519":                           {"attest/identity", "builder/guix/signature"},
	"github.com/elastic/go-seccomp-bpf":                 {"runner/namespace"},
	"github.com/landlock-lsm/go-landlock":               {"runner/namespace"},
	"github.com/spf13/cobra":                            {"cmd/arch", "cmd/arch-node-agent", "cmd/arch-runnerd", "cmd/manual"},
	"github.com/transparency-dev/formats":               {"attest/ledger", "attest/ledger/notekey"},
	"github.com/transparency-dev/tessera":               {"attest/ledger/sequencer"},
	"k8s.io/klog/v2":                                    {"attest/ledger/sequencer"},
	"filippo.io/mldsa":                                  {"attest/ledger/notekey"},
	"go.etcd.io/bbolt":                                  {"agent/executor"},
	"gopkg.in/yaml.v3":                                  {"attest/manifest"},
}

func TestImports(t *testing.T) {
	may, mayNot := parseRules(t, importRules)
	seen := map[string]bool{}
	for _, pkg := range listPackages(t) {
		name := strings.TrimPrefix(pkg.ImportPath, module)
		if strings.HasPrefix(name, "tests") {
			continue
		}
		seen[name] = true
		if may[name] == nil {
			t.Errorf("%s is not placed in importRules: add it to the lowest layer that works", name)
			continue
		}
		for _, imp := range pkg.Imports {
			if in, ok := strings.CutPrefix(imp, module); ok && !may[name][in] {
				t.Errorf("%s may not import %s: see importRules", name, in)
			}
			for lib, users := range doors {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !slices.Contains(users, name) {
					t.Errorf("%s may not import %s: that library enters through %v", name, imp, users)
				}
			}
		}
		for _, dep := range pkg.Deps {
			if mayNot[name][strings.TrimPrefix(dep, module)] {
				t.Errorf("%s depends on %s, which importRules forbids", name, dep)
			}
		}
	}
	for name := range may {
		if !seen[name] && name != "NONE" && !foreign(name) {
			t.Errorf("importRules names %s, which does not exist", name)
		}
	}
}

// foreign reports whether a name of the rules is not of this module.
func foreign(name string) bool { return name == "net/http" || strings.HasPrefix(name, "github.com/") }

type goPackage struct {
	ImportPath    string
	Imports, Deps []string
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,Deps", module+"...")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.String())
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// parseRules returns, for each package, the set that it may import and the set that it must not depend on.
func parseRules(t *testing.T, rules string) (may, mayNot map[string]map[string]bool) {
	t.Helper()
	may, mayNot = map[string]map[string]bool{}, map[string]map[string]bool{}
	var text strings.Builder
	for line := range strings.Lines(rules) {
		line, _, _ = strings.Cut(line, "#")
		text.WriteString(line + " ")
	}
	for rule := range strings.SplitSeq(text.String(), ";") {
		parseRule(rule, may, mayNot)
	}
	close(t, may)
	return may, mayNot
}

// parseRule adds one chain, "a, b < c !< d".
func parseRule(rule string, may, mayNot map[string]map[string]bool) {
	var before, group []string
	into := may
	link := func() {
		for _, b := range group {
			if into[b] == nil {
				into[b] = map[string]bool{}
			}
			for _, a := range before {
				if may[a] == nil && !foreign(a) {
					may[a] = map[string]bool{}
				}
				into[b][a] = true
			}
		}
	}
	for word := range strings.FieldsSeq(rule) {
		switch word {
		case "<", "!<":
			link()
			before, group, into = group, nil, may
			if word == "!<" {
				into = mayNot
			}
		default:
			group = append(group, strings.TrimSuffix(word, ","))
		}
	}
	link()
}

// close makes may transitive, and refuses cycles.
func close(t *testing.T, may map[string]map[string]bool) {
	t.Helper()
	for changed := true; changed; {
		changed = false
		for _, set := range may {
			for a := range set {
				for x := range may[a] {
					if !set[x] {
						set[x], changed = true, true
					}
				}
			}
		}
	}
	for name, set := range may {
		if set[name] {
			t.Fatalf("importRules has a cycle through %s", name)
		}
	}
}
