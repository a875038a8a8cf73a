package policy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

// now is when tests happen, unless they say otherwise.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// key makes a key that is the same for the same name.
func key(t testing.TB, name string) *identity.Key {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	k, err := identity.Generate(identity.Ed25519, bytes.NewReader(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newRoot is a trust root whose policy role is two of alice, bob and carol, and whose governance is dave.
func newRoot(t testing.TB, version int64) *manifest.TrustRoot {
	t.Helper()
	root := &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot",
		Metadata: manifest.Metadata{Name: "net", Expires: "2027-06-01T00:00:00Z"},
		Spec: manifest.TrustRootSpec{Version: version, Roles: map[string]manifest.TrustGroup{
			manifest.RoleGovernance: {Threshold: 1, Of: []string{"dave"}},
			manifest.RolePolicy:     {Threshold: 2, Of: []string{"alice", "bob", "carol"}},
		}},
	}
	for _, name := range []string{"alice", "bob", "carol", "dave", "mallory"} {
		root.Spec.Principals = append(root.Spec.Principals, manifest.Principal{Name: name, Keys: []string{key(t, name).Public().String()}})
	}
	return root
}

func newPolicy(version int64) *manifest.Policy {
	return &manifest.Policy{
		APIVersion: manifest.APIVersion, Kind: "Policy",
		Metadata: manifest.Metadata{Name: "house", Created: "2026-05-01T00:00:00Z", Expires: "2026-12-01T00:00:00Z"},
		Spec:     manifest.PolicySpec{Version: version, OfflineGrace: "24h", Runtimes: []manifest.Runtime{manifest.RuntimeWasm}},
	}
}

// sign makes an envelope.
func sign(t testing.TB, doc manifest.Document, names ...string) *dsse.Envelope {
	t.Helper()
	payload, err := manifest.Canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	env := &dsse.Envelope{PayloadType: manifest.PayloadType(doc.DocumentKind()), Payload: payload}
	for _, name := range names {
		if err := env.Add(t.Context(), key(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	return env
}

// good signs a policy as it must be.
func good(t testing.TB, doc *manifest.Policy) []byte { return sign(t, doc, "alice", "bob").Marshal() }

// world is a keeper, its files and what it reported.
type world struct {
	t      testing.TB
	dir    string
	at     time.Time
	events chan Event
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, dir: t.TempDir(), at: now, events: make(chan Event, 64)}
	w.put("root.json", sign(t, newRoot(t, 1)).Marshal())
	w.put("policy.json", good(t, newPolicy(1)))
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// put swaps a file by rename.
func (w *world) put(name string, data []byte) {
	w.t.Helper()
	temp := w.path(name) + ".tmp"
	if err := errors.Join(os.WriteFile(temp, data, 0o644), os.Rename(temp, w.path(name))); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) options() Options {
	return Options{
		TrustRoot: w.path("root.json"), Policy: w.path("policy.json"), State: w.dir,
		Report: func(e Event) { w.events <- e }, Now: func() time.Time { return w.at },
	}
}

func (w *world) open() *Keeper {
	w.t.Helper()
	k, err := Open(w.options())
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// version returns that of the policy in force; zero: none is.
func version(k *Keeper, at time.Time) int64 {
	a, err := k.Current(at)
	if err != nil {
		return 0
	}
	return a.Policy().Spec.Version
}
