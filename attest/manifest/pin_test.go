package manifest

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// missionJob is the example that the format was designed for, with an identity and a signature that can be read.
const missionJob = `apiVersion: arch.network/v1
kind: Job
metadata:
  name: embed-wikipedia
  owner: user:superintelligence
spec:
  image: ghcr.io/arch/os/embeddings:1.2.3    # a tag: refused, with the hint to run ` + "`arch pin`" + `
  runtime: wasm                               # or oci, nix, guix
  resources: {cpu: "4", memory: "8Gi", gpu: "0", powerBudgetW: 80}
  capabilities:
    net: ["egress:443"]
    fs: ["read:/datasets/wiki", "write:/var/arch/cache"]
  inputs:  {model: "onnx://sentence-transformers/all-MiniLM-L6-v2@sha256:…"}
  outputs: {index: "ipfs://bafy…"}
  placement:
    constraints:
      - {key: energy.price_eur_kwh, op: "<=", value: 0.15}
      - {key: locality.user_hops,  op: "<=", value: 2}
  signature: {by: "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", alg: ed25519, sig: "oH4k"}   # one signer; ` + "`signatures:`" + ` at the top level for several
`

// TestMissionJob reads the example as it is written: only what is not pinned is refused, and the hint names the cure.
func TestMissionJob(t *testing.T) {
	_, err := ReadYAML([]byte(missionJob))
	list, ok := errors.AsType[ErrorList](err)
	if !ok || len(list) != 3 {
		t.Fatalf("error %v; want three", err)
	}
	for _, e := range list {
		if _, ok := errors.AsType[*UnpinnedError](e); !ok || !strings.Contains(e.Hint(), "arch pin") {
			t.Errorf("%v, hint %q; want an *UnpinnedError", e, e.Hint())
		}
	}
	want := `job.yaml:7:10: spec.image: reference "ghcr.io/arch/os/embeddings:1.2.3" is no pin: "1.2.3" is a tag, which may move`
	if got := InFile(list[0], "job.yaml").Error(); got != want {
		t.Errorf("%s; want %s", got, want)
	}
}

// TestPinMissionJob does what arch pin does: every byte but the references stays, and the result is a valid job.
func TestPinMissionJob(t *testing.T) {
	refs, err := FindRefs([]byte(missionJob))
	if err != nil {
		t.Fatal(err)
	}
	want := []RefNode{
		{7, 10, "spec.image", "ghcr.io/arch/os/embeddings:1.2.3", false},
		{13, 20, "spec.inputs.model", "onnx://sentence-transformers/all-MiniLM-L6-v2@sha256:…", false},
		{14, 20, "spec.outputs.index", "ipfs://bafy…", false},
	}
	if diff := cmp.Diff(want, refs); diff != "" {
		t.Fatalf("references (-want +got):\n%s", diff)
	}
	pins := []string{"ghcr.io/arch/os/embeddings:1.2.3@" + hexPin, "onnx://sentence-transformers/all-MiniLM-L6-v2@" + hexPin, "ipfs://" + pinned().CID()}
	repl, text := map[RefNode]string{}, missionJob
	for i, r := range refs {
		repl[r] = pins[i]
		text = strings.Replace(text, r.Value, pins[i], 1)
	}
	got, err := ReplaceRefs([]byte(missionJob), repl)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, string(got)); diff != "" {
		t.Errorf("pinned (-want +got):\n%s", diff)
	}
	mustRead(t, string(got))
}

func TestReplaceRefsStyles(t *testing.T) {
	const head = "apiVersion: arch.network/v1\nkind: Job\nmetadata: {name: a}\nspec:\n  runtime: oci\n"
	pin := "ghcr.io/a/b@" + hexPin
	for _, tt := range []struct{ name, src, want string }{
		{"plain", "  image: ghcr.io/a/b:1 # é\n", "  image: " + pin + " # é\n"},
		{"plain at the end", "  image: ghcr.io/a/b:1", "  image: " + pin},
		{"single quotes", "  image: 'ghcr.io/a/b:1'\n", "  image: '" + pin + "'\n"},
		{"double quotes", "  image: \"ghcr.io/a/b:1\"\n", "  image: \"" + pin + "\"\n"},
		{"escape in double quotes", "  image: \"ghcr.io/a\\x2fb:1\"\n", "  image: \"" + pin + "\"\n"},
		{"wide characters before", "  env: {A: \"äöü€\"}\n  image: {\n", ""},
		{"block scalar", "  image: >-\n    ghcr.io/a/b:1\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refs, err := FindRefs([]byte(head + tt.src))
			if err != nil {
				if tt.want == "" {
					return
				}
				t.Fatal(err)
			}
			got, err := ReplaceRefs([]byte(head+tt.src), map[RefNode]string{refs[0]: pin})
			if tt.want == "" {
				if err == nil {
					t.Fatalf("replaced:\n%s", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(head+tt.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestReplaceRefsInWideLine(t *testing.T) {
	src := "apiVersion: arch.network/v1\nkind: Job\nmetadata: {name: a}\nspec: {runtime: oci, args: [\"äöü€😀\"], image: ghcr.io/a/b:1}\n"
	refs, err := FindRefs([]byte(src))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReplaceRefs([]byte(src), map[RefNode]string{refs[0]: "ghcr.io/a/b@" + hexPin})
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(src, "ghcr.io/a/b:1", "ghcr.io/a/b@"+hexPin, 1); string(got) != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestReplaceRefsRefused(t *testing.T) {
	refs, err := FindRefs([]byte(missionJob))
	if err != nil {
		t.Fatal(err)
	}
	stray := RefNode{Line: 1, Column: 1, Path: "kind", Value: "Job"}
	for _, repl := range []map[RefNode]string{{refs[0]: "ghcr.io/a/b:2"}, {stray: "ghcr.io/a/b@" + hexPin}, {refs[0]: "ghcr.io/a/b@" + hexPin + "\nevil: true"}} {
		if got, err := ReplaceRefs([]byte(missionJob), repl); err == nil {
			t.Errorf("%v gives:\n%s", repl, got)
		}
	}
}

func FuzzReplaceRefs(f *testing.F) {
	f.Add([]byte(missionJob))
	for _, name := range corpus(f, "accepted") {
		f.Add(readFile(f, name))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		refs, err := FindRefs(src)
		if err != nil {
			return
		}
		repl := map[RefNode]string{}
		for _, r := range refs {
			repl[r] = "ghcr.io/a/b@" + hexPin
		}
		out, err := ReplaceRefs(src, repl)
		if err != nil {
			return
		}
		again, err := FindRefs(out)
		if err != nil || len(again) != len(refs) {
			t.Fatalf("%v: %d references became %d:\n%s\n%s", err, len(refs), len(again), src, out)
		}
		for i := range again {
			if !again[i].Pinned || again[i].Path != refs[i].Path {
				t.Errorf("%+v became %+v", refs[i], again[i])
			}
		}
	})
}
