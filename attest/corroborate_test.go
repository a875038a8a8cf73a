package attest_test

import (
	"slices"
	"strings"
	"testing"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/manifest"

	"github.com/google/go-cmp/cmp"
)

// derived returns the claim that a derivation in the store of Nix or Guix, into which the sources of document went, gives a tree with one program.
func (w *world) derived(store string, program []byte, deps ...attest.ResourceDescriptor) *attest.Statement {
	w.t.Helper()
	const hash = "0123456789abcdfghijklmnpqrsvwxyz"
	drv := manifest.Ref{Scheme: manifest.RefStore, Location: store + hash + "-hello-1.0.drv", Digest: digest.Of([]byte(store))}
	doc := &manifest.Build{
		APIVersion: manifest.APIVersion, Kind: "Build", Metadata: manifest.Metadata{Name: "hello-1.0"},
		Spec: manifest.BuildSpec{
			Platform: "linux/amd64", SourceDateEpoch: 1, Derivation: &manifest.BuildDerivation{Ref: drv},
			Outputs: []manifest.BuildOutput{{Name: "hello-1.0", Of: "out", Type: manifest.OutputTree}},
		},
	}
	deps = append(deps, attest.ResourceDescriptor{
		Name: drv.Location, URI: drv.String(), Digest: map[string]string{"sha256": drv.Digest.Hex()}, MediaType: attest.MediaNAR,
	})
	return w.newClaim(doc, deps, []attest.Output{{
		Name: "hello-1.0", NAR: digest.Of([]byte("tree in " + store)), URI: store + hash + "-hello-1.0",
		Programs: map[string]digest.SHA256{"bin/hello": digest.Of(program), "bin/other": digest.Of([]byte("other"))},
	}})
}

// inStore is the source of document as a store object that went into a derivation.
func inStore(store string) attest.ResourceDescriptor {
	path := store + "0123456789abcdfghijklmnpqrsvwxyz-source"
	return attest.ResourceDescriptor{Name: path, URI: path, Digest: map[string]string{"sha256": digest.Of([]byte("source")).Hex()}, MediaType: attest.MediaNAR}
}

// Builders of different kinds, whose claims cannot be equal, agree on the bytes of one program.
func TestVerifyCorroborated(t *testing.T) {
	w := newWorld(t)
	dave := person{"dave", "delta", newKey(t, 5)}
	root := w.newRoot()
	root.Spec.Principals = append(root.Spec.Principals, manifest.Principal{Name: "dave", Operator: "delta", Keys: []string{dave.key.Public().String()}})
	for role, group := range root.Spec.Roles {
		group.Of = append(slices.Clone(group.Of), "dave")
		root.Spec.Roles[role] = group
	}
	w.setRoot(root)

	evil := []byte("evil")
	nix, guix := w.derived("/nix/store/", artifact, inStore("/nix/store/")), w.derived("/gnu/store/", artifact, inStore("/gnu/store/"))
	by := func(id string) func(*attest.Run) { return func(r *attest.Run) { r.Builder.ID = id } }
	viaNix, viaGuix := by(attest.BuilderNix), by(attest.BuilderGuix)
	// left is what one builder leaves: its claim, and its provenance.
	left := func(claim *attest.Statement, how func(*attest.Run), p person) []*dsse.Envelope {
		return []*dsse.Envelope{w.sign(claim, p), w.sign(w.provenance(claim, how), p)}
	}
	native := left(w.claim, by(attest.BuilderHermetic), w.alice)
	tests := []struct {
		name    string
		nix     []*dsse.Envelope
		guix    []*dsse.Envelope
		makers  string
		failed  []string
		skipped string
	}{
		{name: "three ways", nix: left(nix, viaNix, w.bob), guix: left(guix, viaGuix, dave), makers: "alice bob dave"},
		{
			name: "two of one operator", nix: left(nix, viaNix, w.bob), guix: left(guix, viaGuix, w.carol),
			makers: "alice bob carol", failed: []string{attest.CheckRebuilds},
		},
		{
			name: "one builds twice", nix: left(nix, viaNix, w.bob), guix: left(guix, viaGuix, w.bob),
			makers: "alice bob", failed: []string{attest.CheckRebuilds},
		},
		{
			name: "other bytes", nix: left(nix, viaNix, w.bob), guix: left(w.derived("/gnu/store/", evil, inStore("/gnu/store/")), viaGuix, dave),
			makers: "alice bob", failed: []string{attest.CheckRebuilds},
		},
		{
			name: "other bytes under the same claim's manifest, too", nix: left(nix, viaNix, w.bob),
			guix:   append(left(guix, viaGuix, dave), left(w.derived("/gnu/store/", evil, inStore("/gnu/store/")), viaGuix, w.carol)...),
			makers: "alice bob", failed: []string{attest.CheckRebuilds}, skipped: "conflicting-claims",
		},
		{
			name: "from other sources", nix: left(nix, viaNix, w.bob), guix: left(w.derived("/gnu/store/", artifact), viaGuix, dave),
			makers: "alice bob", failed: []string{attest.CheckRebuilds}, skipped: "not as made from the same sources",
		},
		{
			name: "copied", nix: left(nix, viaNix, w.bob),
			guix: left(w.derived("/gnu/store/", artifact, inStore("/gnu/store/"), attest.ResourceDescriptor{
				URI: "https://example.org/hello", Digest: map[string]string{"sha256": digest.Of(artifact).Hex()},
			}), viaGuix, dave),
			makers: "alice bob", failed: []string{attest.CheckRebuilds}, skipped: "something that it was made from",
		},
		{
			name: "a claim without a provenance", nix: left(nix, viaNix, w.bob), guix: left(guix, viaGuix, dave)[:1],
			makers: "alice bob", failed: []string{attest.CheckRebuilds}, skipped: "no one trusted tells how the claim came about",
		},
		{
			name: "a provenance without the claim", nix: left(nix, viaNix, w.bob), guix: left(guix, viaGuix, dave)[1:],
			makers: "alice bob", failed: []string{attest.CheckRebuilds},
		},
		{
			name: "a provenance of another claim", nix: left(nix, viaNix, w.bob),
			guix:   []*dsse.Envelope{w.sign(guix, dave), w.sign(w.provenance(w.derived("/gnu/store/", evil, inStore("/gnu/store/")), viaGuix), dave)},
			makers: "alice bob", failed: []string{attest.CheckRebuilds}, skipped: "claim-provenance",
		},
		{
			name: "unconfined", nix: left(nix, viaNix, w.bob), guix: left(guix, by(attest.BuilderGuixDegraded), dave),
			makers: "alice bob", failed: []string{attest.CheckRebuilds}, skipped: "is not accepted",
		},
		{name: "nobody we know", nix: left(nix, viaNix, w.bob), guix: left(guix, viaGuix, w.eve), makers: "alice bob", failed: []string{attest.CheckRebuilds}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := w.input(receiptOf(slices.Concat(native, tt.nix, tt.guix)...))
			in.Rebuilds, in.Operators = 3, 3
			r := w.verify(in)
			if diff := cmp.Diff(tt.failed, failures(r)); diff != "" {
				t.Errorf("failed checks (-want +got):\n%s\n%s", diff, r.Text())
			}
			var makers []string
			for _, b := range r.Builders {
				makers = append(makers, b.Principal)
			}
			slices.Sort(makers)
			if diff := cmp.Diff(tt.makers, strings.Join(makers, " ")); diff != "" {
				t.Errorf("builders (-want +got):\n%s\n%s", diff, r.Text())
			}
			if tt.skipped != "" && !strings.Contains(r.Text(), tt.skipped) {
				t.Errorf("the report does not say %q:\n%s", tt.skipped, r.Text())
			}
			_, vsa := w.vsa(r, summaryOptions())
			if got, want := slices.Contains(vsa.VerifiedLevels, attest.LevelReproduced), tt.failed == nil; got != want {
				t.Errorf("reproduced: %v, want %v", got, want)
			}
			if tt.failed == nil && len(vsa.InputAttestations) != 6 {
				t.Errorf("the summary lists %d attestations, not three claims and three provenances", len(vsa.InputAttestations))
			}
		})
	}
}

// A program in a tree is verified by itself; a summary says nothing of the tree, and the name counts.
func TestVerifyProgram(t *testing.T) {
	w := newWorld(t)
	claim := w.derived("/nix/store/", artifact, inStore("/nix/store/"))
	how := func(r *attest.Run) { r.Builder.ID = attest.BuilderNix }
	in := w.input(receiptOf(w.sign(claim, w.alice), w.sign(w.provenance(claim, how), w.alice)))
	in.Name = "hello"
	r := w.verify(in)
	var names []string
	for _, s := range r.Subjects {
		names = append(names, s.Name)
	}
	if diff := cmp.Diff([]string{"hello-1.0#bin/hello"}, names); diff != "" || !r.OK {
		t.Errorf("subjects (-want +got):\n%s\n%s", diff, r.Text())
	}
	in.Name = "other"
	if diff := cmp.Diff([]string{attest.CheckName}, failures(w.verify(in))); diff != "" {
		t.Errorf("failed checks (-want +got):\n%s", diff)
	}
	for _, path := range []string{"bin/../sh", "/bin/sh", "bin//sh", "bin/", "bin/a#b"} {
		out := attest.Output{Name: "tree", NAR: digest.Of(nil), Programs: map[string]digest.SHA256{path: digest.Of(nil)}}
		if _, err := attest.NewClaim(document("tree"), w.dependencies, []attest.Output{out}); err == nil {
			t.Errorf("a claim may name %q", path)
		}
	}
}
