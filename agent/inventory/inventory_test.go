package inventory_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/agent/inventory"
	"arch.network/attest/manifest"
	"arch.network/runner/job"
)

func write(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const twoGPUs = `{"cdiVersion": "0.6.0", "kind": "example.com/gpu", "devices": [
	{"name": "1", "containerEdits": {"env": ["GPU=1"]}},
	{"name": "0", "containerEdits": {"env": ["GPU=0"]}}]}`

func TestMeasure(t *testing.T) {
	counted := map[string]string{
		"sys/class/powercap/intel-rapl:0/name": "package-0\n", "sys/class/powercap/intel-rapl:0/energy_uj": "5\n",
		"sys/class/powercap/intel-rapl:0/max_energy_range_uj": "100\n", "proc/stat": "cpu  1 2 3 4 5 6 7 8 9 10\n",
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  map[string]string
		err   string
	}{
		{
			"two devices",
			map[string]string{"cdi/gpu.json": twoGPUs},
			map[string]string{"node.devices": `["example.com/gpu=0","example.com/gpu=1"]`, "energy.meter": `"model"`},
			"",
		},
		{"no devices", nil, map[string]string{"node.devices": `[]`, "energy.meter": `"model"`}, ""},
		{"a processor that counts", counted, map[string]string{"energy.meter": `"rapl"`}, ""},
		{"a file that says nothing sound", map[string]string{"cdi/gpu.json": "{"}, map[string]string{"node.os": `"linux"`, "node.devices": ""}, "measure node.devices: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				write(t, root, name, text)
			}
			facts, err := inventory.Measure(inventory.Options{Root: root, CDI: []string{filepath.Join(root, "cdi")}})
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			got := map[string]string{}
			for key := range tt.want {
				got[key] = string(facts[key])
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("facts (-want +got):\n%s", diff)
			}
		})
	}
}

// factKey is the form of keys of facts in documents (attest/manifest).
var factKey = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$`)

// On the machine of the test everything can be measured, every key is one that documents may use, and a job with constraints is placed by it.
func TestMeasureHere(t *testing.T) {
	facts, err := inventory.Measure(inventory.Options{CDI: []string{t.TempDir()}, Driver: "namespace"})
	if err != nil {
		t.Fatal(err)
	}
	var doc manifest.Job
	for _, c := range []struct{ key, op, value string }{
		{"node.os", "==", `"linux"`},
		{"node.arch", "in", `["` + runtime.GOARCH + `","riscv64"]`},
		{"node.cpus", ">=", "1"},
		{"node.memory", ">", "1048576"},
		{"node.cpu_features", "==", map[string]string{"amd64": `"sse2"`, "arm64": `"fp"`}[runtime.GOARCH]},
		{"node.kernel", "!=", `""`},
		{"node.driver", "==", `"namespace"`},
		{"energy.meter", "in", `["rapl","model"]`},
	} {
		doc.Spec.Placement.Constraints = append(doc.Spec.Placement.Constraints, manifest.Constraint{Key: c.key, Op: manifest.Operator(c.op), Value: json.RawMessage(c.value)})
	}
	if unmet := job.Placed(&doc, job.Facts{Known: []map[string]manifest.Raw{facts}}); len(unmet) > 0 {
		t.Errorf("not placed here: %+v", unmet)
	}
	doc.Spec.Placement.Constraints = []manifest.Constraint{{Key: "node.devices", Op: manifest.OpEqual, Value: json.RawMessage(`"example.com/gpu=0"`)}}
	if unmet := job.Placed(&doc, job.Facts{Known: []map[string]manifest.Raw{facts}}); len(unmet) != 1 {
		t.Errorf("a device that this machine does not have: %+v", unmet)
	}
	for key := range facts {
		if !factKey.MatchString(key) {
			t.Errorf("no document may use the key %q", key)
		}
	}
}
