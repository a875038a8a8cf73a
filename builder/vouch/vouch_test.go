package vouch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
	"arch.network/builder/binarycache"
	"arch.network/builder/guix/signature"
	"arch.network/builder/vouch"
)

var (
	path = storepath.Path{Dir: "/nix/store", Hash: strings.Repeat("a", 32), Name: "hello"}
	good = digest.Of([]byte("good"))
	bad  = digest.Of([]byte("bad"))
	at   = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
)

func fingerprint(nar digest.SHA256) binarycache.Fingerprint {
	return binarycache.Fingerprint{Path: path, NAR: nar, Size: 120}
}

func nixKey(t *testing.T, name, seed string) binarycache.SecretKey {
	t.Helper()
	key, err := binarycache.GenerateKey(name, strings.NewReader(strings.Repeat(seed, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func archKey(t *testing.T, seed string) *identity.Key {
	t.Helper()
	key, err := identity.Generate(identity.Ed25519, strings.NewReader(strings.Repeat(seed, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func guixKey(t *testing.T, seed string) signature.PrivateKey {
	t.Helper()
	key, err := signature.GeneratePrivateKey(strings.NewReader(strings.Repeat(seed, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// oneLine is how a Guix key stands in a list.
func oneLine(k signature.PublicKey) string { return strings.Join(strings.Fields(k.String()), " ") }

func parse(t *testing.T, text string) *vouch.Keys {
	t.Helper()
	k, err := vouch.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// provenance is a receipt that says who built the path.
func provenance(t *testing.T, key identity.Signer, subjects ...attest.ResourceDescriptor) *attest.Receipt {
	t.Helper()
	stmt, err := attest.NewStatement(subjects, &attest.Provenance{
		BuildDefinition: attest.BuildDefinition{BuildType: "https://example.org/b", ExternalParameters: json.RawMessage(`{}`)},
		RunDetails:      attest.RunDetails{Builder: attest.Builder{ID: "https://example.org/builder"}},
	})
	return receipt(t, stmt, err, key)
}

func receipt(t *testing.T, stmt *attest.Statement, err error, key identity.Signer) *attest.Receipt {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	env, err := stmt.Sign(context.Background(), key)
	if err != nil {
		t.Fatal(err)
	}
	r := &attest.Receipt{}
	if !r.Add(env) {
		t.Fatal("the receipt does not take the statement")
	}
	return r
}

func guixInfo(key signature.PrivateKey, p storepath.Path, nar digest.SHA256) binarycache.GuixSignature {
	signed := fmt.Appendf(nil, "StorePath: %s\nNarHash: %s\nNarSize: 120\nReferences: \n", p, nar.Nix32())
	return binarycache.GuixSignature{Signed: signed, Value: key.Sign(signed).Line("host")}
}

// TestJudge counts operators in each case where counting signatures or keys would count something else.
func TestJudge(t *testing.T) {
	a1, a2, b := nixKey(t, "a-1", "1"), nixKey(t, "a-2", "2"), nixKey(t, "b-1", "3")
	stranger := nixKey(t, "c-1", "4")
	impostor := nixKey(t, "b-1", "5")
	builder, other := archKey(t, "6"), archKey(t, "7")
	guix := guixKey(t, "8")
	list := parse(t, strings.Join([]string{
		"# who runs which key", "quorum 2", "",
		"operator a.example " + a1.Public().String(), "operator a.example " + a2.Public().String() + "   # the new one",
		"operator b.example " + b.Public().String(), "operator b.example " + builder.Public().String(),
		"operator guix.example " + oneLine(guix.Public()),
	}, "\n"))
	if list.Quorum != 2 {
		t.Errorf("quorum %d", list.Quorum)
	}
	fp := fingerprint(good).String()
	otherPath := path
	otherPath.Name = "older-hello"
	vsa, vsaErr := attest.NewStatement([]attest.ResourceDescriptor{binarycache.Subject(path, good)}, &attest.VSA{
		Verifier: attest.Verifier{ID: "x"}, ResourceURI: "x", Policy: attest.ResourceDescriptor{URI: "x"}, VerificationResult: attest.Passed, VerifiedLevels: []string{"X"},
	})
	for _, c := range []struct {
		name     string
		evidence vouch.Evidence
		want     []string // operators
		against  int
		wrong    int
	}{
		{"nobody", vouch.Evidence{}, nil, 0, 0},
		{"one", vouch.Evidence{Sigs: []binarycache.Signature{a1.Sign(fp)}}, []string{"a.example"}, 0, 0},
		{"one operator with two keys", vouch.Evidence{Sigs: []binarycache.Signature{a1.Sign(fp), a2.Sign(fp)}}, []string{"a.example"}, 0, 0},
		{"one signature often", vouch.Evidence{Sigs: []binarycache.Signature{a1.Sign(fp), a1.Sign(fp), a1.Sign(fp)}}, []string{"a.example"}, 0, 0},
		{"two operators", vouch.Evidence{Sigs: []binarycache.Signature{a1.Sign(fp), b.Sign(fp)}}, []string{"a.example", "b.example"}, 0, 0},
		{"a stranger", vouch.Evidence{Sigs: []binarycache.Signature{stranger.Sign(fp)}}, nil, 0, 0},
		{"a stranger who calls himself b-1", vouch.Evidence{Sigs: []binarycache.Signature{impostor.Sign(fp)}}, nil, 0, 1},
		{"a signature over another hash", vouch.Evidence{Sigs: []binarycache.Signature{a1.Sign(fingerprint(bad).String())}}, nil, 0, 1},
		{"a cache and its own builder", vouch.Evidence{Sigs: []binarycache.Signature{b.Sign(fp)}, Receipts: provenance(t, builder, binarycache.Subject(path, good))}, []string{"b.example"}, 0, 0},
		{"a cache and another's builder", vouch.Evidence{Sigs: []binarycache.Signature{a1.Sign(fp)}, Receipts: provenance(t, builder, binarycache.Subject(path, good))}, []string{"a.example", "b.example"}, 0, 0},
		{"a receipt by a stranger", vouch.Evidence{Receipts: provenance(t, other, binarycache.Subject(path, good))}, nil, 0, 0},
		{"a receipt for another path with these bytes", vouch.Evidence{Receipts: provenance(t, builder, binarycache.Subject(otherPath, good))}, nil, 0, 0},
		{"a receipt that names a file", vouch.Evidence{Receipts: provenance(t, builder, attest.ResourceDescriptor{URI: path.String(), Digest: map[string]string{"sha256": good.Hex()}})}, nil, 0, 0},
		{"an objection", vouch.Evidence{Sigs: []binarycache.Signature{a1.Sign(fp)}, Receipts: provenance(t, builder, binarycache.Subject(path, bad))}, []string{"a.example"}, 1, 0},
		{"who says both says nothing", vouch.Evidence{Sigs: []binarycache.Signature{b.Sign(fp)}, Receipts: provenance(t, builder, binarycache.Subject(path, bad))}, nil, 1, 0},
		{"hearsay", vouch.Evidence{Receipts: receipt(t, vsa, vsaErr, builder)}, nil, 0, 0},
		{"Guix", vouch.Evidence{Guix: []binarycache.GuixSignature{guixInfo(guix, path, good)}}, []string{"guix.example"}, 0, 0},
		{"Guix, of another path", vouch.Evidence{Guix: []binarycache.GuixSignature{guixInfo(guix, otherPath, good)}}, nil, 0, 0},
		{"Guix, of another hash", vouch.Evidence{Guix: []binarycache.GuixSignature{guixInfo(guix, path, bad)}}, nil, 1, 0},
		{"Guix, changed", vouch.Evidence{Guix: []binarycache.GuixSignature{{Signed: guixInfo(guix, path, good).Signed, Value: guixInfo(guix, path, bad).Value}}}, nil, 0, 1},
		{"Guix, a stranger", vouch.Evidence{Guix: []binarycache.GuixSignature{guixInfo(guixKey(t, "9"), path, good)}}, nil, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.evidence.Fingerprint = fingerprint(good)
			v := list.Judge(c.evidence, at)
			if diff := cmp.Diff(c.want, v.Operators()); diff != "" {
				t.Errorf("operators (-want +got):\n%s", diff)
			}
			if len(v.Against) != c.against || len(v.Wrong) != c.wrong {
				t.Errorf("against %v, wrong %q", v.Against, v.Wrong)
			}
		})
	}
}

func trustRoot(keys map[string]string, expires string) *manifest.TrustRoot {
	root := &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot", Metadata: manifest.Metadata{Name: "test", Expires: expires},
		Spec: manifest.TrustRootSpec{Version: 1, Roles: map[string]manifest.TrustGroup{}},
	}
	var names []string
	for _, name := range []string{"alice", "bob"} {
		root.Spec.Principals = append(root.Spec.Principals, manifest.Principal{Name: name, Operator: name + ".example", Keys: []string{keys[name]}})
		names = append(names, name)
	}
	for _, role := range []string{manifest.RoleGovernance, manifest.RoleBuilder} {
		root.Spec.Roles[role] = manifest.TrustGroup{Threshold: 1, Of: names}
	}
	return root
}

// TestTrust counts the builders of a trust root, by receipts and by keys of caches, until it expires or they are revoked.
func TestTrust(t *testing.T) {
	alice, bob := archKey(t, "1"), archKey(t, "2")
	seed, err := identity.Generate(identity.Ed25519, strings.NewReader(strings.Repeat("1", 64)))
	if err != nil {
		t.Fatal(err)
	}
	e := vouch.Evidence{Fingerprint: fingerprint(good), Receipts: provenance(t, alice, binarycache.Subject(path, good))}
	sig, err := bob.Sign(t.Context(), []byte(e.Fingerprint.String()))
	if err != nil {
		t.Fatal(err)
	}
	e.Sigs = []binarycache.Signature{{Name: "whatever", Value: sig}}
	names := map[string]string{"alice": seed.Public().String(), "bob": bob.Public().String()}
	root := trustRoot(names, "2027-01-01T00:00:00Z")
	revoked := trustRoot(names, "2027-01-01T00:00:00Z")
	revoked.Spec.Revocations = []manifest.Revocation{{Principal: "alice", Since: "2026-01-01T00:00:00Z", Reason: "lost"}}
	for _, c := range []struct {
		name string
		root *manifest.TrustRoot
		at   time.Time
		want []string
	}{
		{"both", root, at, []string{"alice.example", "bob.example"}},
		{"expired", root, at.AddDate(1, 0, 0), nil},
		{"alice is revoked", revoked, at, []string{"bob.example"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &vouch.Keys{}
			if err := k.SetTrust(c.root); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, k.Judge(e, c.at).Operators()); diff != "" {
				t.Errorf("operators (-want +got):\n%s", diff)
			}
		})
	}
	k := parse(t, "operator elsewhere "+bob.Public().String())
	if err := k.SetTrust(root); err == nil {
		t.Error("a key has two owners")
	}
}

func TestKeysRefused(t *testing.T) {
	a := nixKey(t, "a-1", "1")
	did, err := identity.NewPublicKey(identity.Ed25519, a.Public().Key)
	if err != nil {
		t.Fatal(err)
	}
	var point signature.PublicKey
	copy(point[:], a.Public().Key)
	line := "operator a " + a.Public().String()
	for _, c := range []struct{ name, text, want string }{
		{"nonsense", "hello", "neither quorum nor operator"},
		{"no key", "operator a", "NAME:BASE64"},
		{"no name", "operator  ", "no name"},
		{"quorum twice", line + "\nquorum 1\nquorum 1", "second"},
		{"quorum of nobody", line + "\nquorum 2", "more than the 1 operators"},
		{"quorum zero", "quorum 0", "no number"},
		{"the same key twice", line + "\n" + line, "two keys of the name"},
		{"under another name", line + "\noperator a a-2:" + strings.Split(a.Public().String(), ":")[1], "there already"},
		{"of another operator", line + "\noperator b b-1:" + strings.Split(a.Public().String(), ":")[1], "belongs to a already"},
		{"of another operator, as did:key", line + "\noperator b " + did.String(), "belongs to a already"},
		{"of another operator, as a key of Guix", line + "\noperator b " + oneLine(point), "belongs to a already"},
		{"small order", "operator a a-1:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", ""},
		{"control character", "operator a\x1b[2J " + a.Public().String(), `\x1b`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := vouch.ParseKeys(c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	// One key for two purposes of one operator is one key.
	parse(t, line+"\noperator a "+did.String())
}

// TestRealGuix counts the signature that a real `guix publish` made.
func TestRealGuix(t *testing.T) {
	data, err := os.ReadFile("../binarycache/testdata/guix.narinfo")
	if err != nil {
		t.Fatal(err)
	}
	n, err := binarycache.ParseNarInfo(data)
	if err != nil {
		t.Fatal(err)
	}
	k := parse(t, "operator here (public-key (ecc (curve Ed25519) (q #C2F875DC97C2BA8E2A34842E44F08E9D67C3FD4DE1476211D3CA4C4A82DE2387#)))")
	v := k.Judge(vouch.Evidence{Fingerprint: n.Fingerprint(), Guix: []binarycache.GuixSignature{*n.Guix}}, at)
	if diff := cmp.Diff([]string{"here"}, v.Operators()); diff != "" {
		t.Errorf("operators (-want +got):\n%s", diff)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add("quorum 1\noperator a cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY= # c\n")
	f.Add("operator g (public-key (ecc (curve Ed25519) (q #C2F875DC97C2BA8E2A34842E44F08E9D67C3FD4DE1476211D3CA4C4A82DE2387#)))")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := vouch.ParseKeys(text); err == nil && k.Quorum > 0 && k.Empty() {
			t.Fatal("a quorum of nobody")
		}
	})
}
