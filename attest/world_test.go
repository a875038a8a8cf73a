package attest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

// now is when every test takes place.
var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// artifact is what the tests verify, and its digest.
var artifact = []byte("#!/bin/sh\necho hello\n")

// newKey returns the key number n, the same in every run.
func newKey(t testing.TB, n byte) *identity.Key {
	t.Helper()
	k, err := identity.Generate(identity.Ed25519, rand.NewChaCha8([32]byte{n}))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// person is a principal of the tests.
type person struct {
	name, operator string
	key            *identity.Key
}

// world is a trust root with three builders and rebuilders, and someone whom nobody knows.
type world struct {
	t                      testing.TB
	alice, bob, carol, eve person
	root                   *manifest.TrustRoot
	trust                  *attest.Trust
	claim                  *attest.Statement
	dependencies           []attest.ResourceDescriptor
	document               *manifest.Build
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		t:     t,
		alice: person{"alice", "acme", newKey(t, 1)},
		bob:   person{"bob", "beta", newKey(t, 2)},
		carol: person{"carol", "beta", newKey(t, 3)},
		eve:   person{"eve", "evil", newKey(t, 4)},
	}
	w.document = document("hello")
	w.dependencies = dependencies(3)
	w.claim = w.newClaim(w.document, w.dependencies, outputs("hello", artifact))
	w.setRoot(w.newRoot())
	return w
}

func (w *world) setRoot(root *manifest.TrustRoot) {
	w.t.Helper()
	trust, err := attest.NewTrust(root)
	if err != nil {
		w.t.Fatal(err)
	}
	w.root, w.trust = root, trust
}

func (w *world) newRoot() *manifest.TrustRoot {
	all := []string{"alice", "bob", "carol"}
	one := manifest.TrustGroup{Threshold: 1, Of: all}
	root := &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot",
		Metadata: manifest.Metadata{Name: "test", Expires: "2027-01-01T00:00:00Z"},
		Spec: manifest.TrustRootSpec{Version: 1, Roles: map[string]manifest.TrustGroup{
			manifest.RoleGovernance: one, manifest.RoleBuilder: one, manifest.RoleRebuilder: one, manifest.RolePolicy: one,
		}},
	}
	for _, p := range []person{w.alice, w.bob, w.carol} {
		root.Spec.Principals = append(root.Spec.Principals, manifest.Principal{
			Name: p.name, Operator: p.operator, Keys: []string{p.key.Public().String()},
		})
	}
	return root
}

// document returns a Build that makes one file.
func document(name string) *manifest.Build {
	return &manifest.Build{
		APIVersion: manifest.APIVersion, Kind: "Build",
		Metadata: manifest.Metadata{Name: name},
		Spec: manifest.BuildSpec{
			Platform: "linux/amd64", SourceDateEpoch: 1700000000,
			Inputs: []manifest.BuildInput{{
				Name: "source", Mount: "/src",
				Ref: manifest.Ref{Scheme: manifest.RefTree, Location: "source", Digest: digest.Of([]byte("source"))},
			}},
			Steps:   []manifest.BuildStep{{Argv: []string{"/src/make"}}},
			Outputs: []manifest.BuildOutput{{Name: name, Path: "/build/" + name, Type: manifest.OutputFile}},
		},
	}
}

// dependencies returns n of them in order; the last is the source of document.
func dependencies(n int) []attest.ResourceDescriptor {
	var list []attest.ResourceDescriptor
	for i := range n - 1 {
		uri := fmt.Sprintf("https://example.org/input-%03d.tar.gz", i)
		list = append(list, attest.ResourceDescriptor{
			Name: fmt.Sprintf("input-%03d", i), URI: uri, MediaType: "application/gzip",
			Digest: map[string]string{"sha256": digest.Of([]byte(uri)).Hex()},
		})
	}
	return append(list, attest.ResourceDescriptor{
		URI: document("").Spec.Inputs[0].Ref.String(), MediaType: "application/x-nix-nar",
		Digest: map[string]string{"sha256": digest.Of([]byte("source")).Hex()},
	})
}

func outputs(name string, content []byte) []attest.Output {
	return []attest.Output{{Name: name, File: digest.Of(content), NAR: digest.Of(append([]byte("nar"), content...))}}
}

func (w *world) newClaim(doc *manifest.Build, deps []attest.ResourceDescriptor, out []attest.Output) *attest.Statement {
	w.t.Helper()
	s, err := attest.NewClaim(doc, deps, out)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// sign wraps a statement in an envelope with the signatures of by.
func (w *world) sign(s *attest.Statement, by ...person) *dsse.Envelope {
	w.t.Helper()
	payload, err := s.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	return w.signBytes(payload, by...)
}

func (w *world) signBytes(payload []byte, by ...person) *dsse.Envelope {
	w.t.Helper()
	env := &dsse.Envelope{PayloadType: attest.PayloadType, Payload: payload}
	for _, p := range by {
		if err := env.Add(context.Background(), p.key); err != nil {
			w.t.Fatal(err)
		}
	}
	return env
}

// run is an honest run of a hermetic build.
func run() attest.Run {
	return attest.Run{
		Builder:  attest.Builder{ID: attest.BuilderHermetic, Version: map[string]string{"arch": "v1"}},
		Started:  now.Add(-time.Hour),
		Finished: now.Add(-time.Minute),
		Variations: attest.Variations{
			Builds: 2, Factors: []string{"cpus", "time"}, Equal: true,
		},
		Confinement: json.RawMessage(`{"driver":"namespace","enforced":["network-none"]}`),
		Log:         digest.Of([]byte("log")),
	}
}

func (w *world) provenance(claim *attest.Statement, change ...func(*attest.Run)) *attest.Statement {
	w.t.Helper()
	r := run()
	for _, f := range change {
		f(&r)
	}
	s, err := attest.NewProvenance(claim, r)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// receipt returns what honest builders leave: the claim with all their signatures, and a provenance of each.
func (w *world) receipt(by ...person) *attest.Receipt {
	r := &attest.Receipt{}
	r.Add(w.sign(w.claim, by...))
	for _, p := range by {
		r.Add(w.sign(w.provenance(w.claim, func(run *attest.Run) { run.InvocationID = p.name }), p))
	}
	return r
}

// file is an artifact that is a regular file.
func file(name string, content []byte) attest.Artifact {
	return attest.Artifact{Name: name, Hash: func(_ context.Context, form attest.Form) (digest.SHA256, error) {
		if form != attest.FormFile {
			return digest.SHA256{}, attest.ErrNoForm
		}
		return digest.Of(content), nil
	}}
}

func (w *world) input(r *attest.Receipt) attest.VerifyInput {
	return attest.VerifyInput{Artifact: file("hello", artifact), Receipt: r, Trust: w.trust, At: now}
}

func (w *world) verify(in attest.VerifyInput) *attest.Report {
	w.t.Helper()
	r, err := attest.Verify(context.Background(), in)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// failures lists the names of the checks that failed, each once.
func failures(r *attest.Report) []string {
	var out []string
	for _, c := range r.Checks {
		if c.Result == attest.Fail && (len(out) == 0 || out[len(out)-1] != c.Name) {
			out = append(out, c.Name)
		}
	}
	return out
}

// rewrite returns the bytes of a statement with one piece of text replaced; it fails if there is nothing to replace.
func (w *world) rewrite(s *attest.Statement, old, new string) []byte {
	w.t.Helper()
	data, err := s.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(old)) {
		w.t.Fatalf("statement does not contain %q:\n%s", old, data)
	}
	return bytes.ReplaceAll(data, []byte(old), []byte(new))
}
