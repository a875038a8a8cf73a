package manifest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
)

const exampleJob = `# A job with comments and its own layout.
apiVersion: arch.network/v1
kind: Job
metadata: {name: count}   # flow
spec:
  # the image
  image:   ghcr.io/arch/count@` + hexPin + `
  runtime: wasm

  args: [ a,   "b" ]  # two
# the end
`

// keys returns one deterministic key of each algorithm that can sign here.
func keys(t *testing.T, algorithms ...identity.Algorithm) []*identity.Key {
	t.Helper()
	var out []*identity.Key
	for i, alg := range algorithms {
		k, err := identity.Generate(alg, rand.NewChaCha8([32]byte{byte(i)}))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, k)
	}
	return out
}

// sign returns the in-document signatures of doc by each key.
func sign(t *testing.T, doc Document, signers []*identity.Key) []Signature {
	t.Helper()
	payload, err := Canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	var out []Signature
	for _, k := range signers {
		env, err := dsse.Sign(t.Context(), PayloadType(doc.DocumentKind()), payload, k)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := SignatureOf(env.Signatures[0])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, sig)
	}
	return out
}

// TestCarriers takes a document from YAML to its envelope and back, with one signer and with several, and verifies.
func TestCarriers(t *testing.T) {
	for _, tt := range []struct {
		name string
		algs []identity.Algorithm
	}{
		{"none", nil},
		{"one", []identity.Algorithm{identity.Ed25519}},
		{"one ML-DSA", []identity.Algorithm{identity.MLDSA65}},
		{"several", []identity.Algorithm{identity.Ed25519, identity.ECDSAP256, identity.MLDSA65}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			doc := mustRead(t, exampleJob)
			signers := keys(t, tt.algs...)
			src, err := InsertSignatures([]byte(exampleJob), sign(t, doc, signers))
			if err != nil {
				t.Fatal(err)
			}
			signed := mustRead(t, string(src))
			env, err := Wrap(signed)
			if err != nil {
				t.Fatal(err)
			}
			checkVerified(t, env, signers)
			parsed, err := dsse.Parse(env.Marshal())
			if err != nil {
				t.Fatal(err)
			}
			back, err := Unwrap(parsed)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(signed, back); diff != "" {
				t.Errorf("document from envelope (-want +got):\n%s", diff)
			}
			checkRoundTrips(t, back)
			checkID(t, doc, env)
		})
	}
}

func mustRead(t testing.TB, src string) Document {
	t.Helper()
	doc, err := ReadYAML([]byte(src))
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	return doc
}

func checkVerified(t *testing.T, env *dsse.Envelope, signers []*identity.Key) {
	t.Helper()
	var trusted []identity.PublicKey
	for _, k := range signers {
		trusted = append(trusted, k.Public())
	}
	if got := env.Verified(trusted); len(got) != len(signers) {
		t.Errorf("%d of %d signatures verify", len(got), len(signers))
	}
}

func checkID(t *testing.T, unsigned Document, env *dsse.Envelope) {
	t.Helper()
	id, err := ID(unsigned)
	if err != nil {
		t.Fatal(err)
	}
	if id != env.ID() {
		t.Errorf("the document's id is %s, its envelope's %s", id, env.ID())
	}
}

// TestUnwrapRefused shows what is no document in an envelope, whoever signed it.
func TestUnwrapRefused(t *testing.T) {
	good, err := Wrap(mustRead(t, exampleJob))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		edit func(*dsse.Envelope)
		want string
	}{
		{"payload type of another kind", func(e *dsse.Envelope) { e.PayloadType = PayloadType("Policy") }, `payload type is "application/vnd.arch.network.policy.v1+json", but the payload is a Job`},
		{"unknown payload type", func(e *dsse.Envelope) { e.PayloadType = "application/vnd.in-toto+json" }, "is that of no document"},
		{"not canonical", func(e *dsse.Envelope) { e.Payload = append([]byte(" "), e.Payload...) }, "canonical"},
		{"case variant", func(e *dsse.Envelope) {
			e.Payload = bytes.Replace(e.Payload, []byte(`"spec"`), []byte(`"Spec"`), 1)
		}, "canonical form"},
		{"signature inside", func(e *dsse.Envelope) {
			e.Payload = bytes.Replace(e.Payload, []byte(`"runtime":"wasm"`), []byte(`"runtime":"wasm","signature":{"alg":"ed25519","by":"openpgp:0123456789ABCDEF0123456789ABCDEF01234567","sig":"AAAA"}`), 1)
		}, "carries no signatures"},
		{"keyid is no identity", func(e *dsse.Envelope) { e.Signatures = []dsse.Signature{{KeyID: "key-1", Sig: []byte("x")}} }, `keyid "key-1" is no identity`},
		{"no signature bytes", func(e *dsse.Envelope) { e.Signatures = []dsse.Signature{{KeyID: "key-1"}} }, "no readable signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := &dsse.Envelope{PayloadType: good.PayloadType, Payload: bytes.Clone(good.Payload)}
			tt.edit(env)
			_, err := Unwrap(env)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v; want one with %q", err, tt.want)
			}
		})
	}
}

func TestCheckAlg(t *testing.T) {
	k := keys(t, identity.Ed25519)[0]
	for _, tt := range []struct {
		sig  Signature
		want string
	}{
		{Signature{By: k.Public().String(), Alg: "ed25519"}, ""},
		{Signature{By: k.Public().String(), Alg: "ecdsa-p256"}, `signature says alg "ecdsa-p256", but its signer's key is ed25519`},
		{Signature{By: "openpgp:0123456789ABCDEF0123456789ABCDEF01234567", Alg: "openpgp"}, ""},
		{Signature{By: "openpgp:0123456789ABCDEF0123456789ABCDEF01234567", Alg: "ed25519"}, `signature says alg "ed25519", but its signer's key is openpgp`},
		{Signature{By: hexPin, Alg: "ml-dsa-65"}, ""},
	} {
		got := ""
		if err := CheckAlg(tt.sig); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%+v: %q; want %q", tt.sig, got, tt.want)
		}
	}
	if err := CheckAlg(Signature{By: "did:key:zNonsense", Alg: "ed25519"}); err == nil {
		t.Error("an identity that is no key is accepted")
	}
}

func TestSignatureBytes(t *testing.T) {
	raw := []byte{0xfb, 0xef, 0xff, 0xff, 1}
	for _, text := range []string{"++///wE=", "++///wE", "--___wE=", "--___wE"} {
		if got, err := (Signature{Sig: text}).Bytes(); err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%q is %x, %v", text, got, err)
		}
	}
	for _, text := range []string{"+-///wE=", "++///wF=", "++///w=E", "++///wE==", "++///wE\n", "é"} {
		if got, err := (Signature{Sig: text}).Bytes(); err == nil {
			t.Errorf("%q is accepted as %x", text, got)
		}
	}
}

// TestInsertSignatures shows where signatures go in each layout, and that every other byte stays.
func TestInsertSignatures(t *testing.T) {
	const by = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"
	sig := func(s string) Signature {
		return Signature{By: by, Alg: "ed25519", Sig: base64.StdEncoding.EncodeToString([]byte(s))}
	}
	line := func(s string) string { return flowSignature(sig(s)) }
	const policy = "apiVersion: arch.network/v1\nkind: Policy\nmetadata:\n  name: p\n  expires: \"2027-01-01T00:00:00Z\"\nspec:\n  version: 1\n"
	flow := `{apiVersion: arch.network/v1, kind: Job, metadata: {name: a}, spec: {runtime: oci, image: "ghcr.io/a/b@` + hexPin + `"}}`
	block := strings.Replace(exampleJob, `args: [ a,   "b" ]  # two`, "args:\n    - |\n      # no comment", 1)
	for _, tt := range []struct {
		name string
		src  string
		add  []Signature
		want string
	}{
		{"one in a job", exampleJob, []Signature{sig("1")}, strings.Replace(exampleJob, "# the end", "  signature: "+line("1")+"\n# the end", 1)},
		{"two in a job", exampleJob, []Signature{sig("1"), sig("2")}, strings.Replace(exampleJob, "# the end", "signatures:\n  - "+line("1")+"\n  - "+line("2")+"\n# the end", 1)},
		{"same twice", exampleJob, []Signature{sig("1"), sig("1")}, strings.Replace(exampleJob, "# the end", "signatures:\n  - "+line("1")+"\n# the end", 1)},
		{"one in a policy", policy, []Signature{sig("1")}, policy + "signatures:\n  - " + line("1") + "\n"},
		{"no line feed at the end", strings.TrimSuffix(policy, "\n"), []Signature{sig("1")}, policy + "signatures:\n  - " + line("1") + "\n"},
		{"after others", policy + "signatures:\n- " + line("1") + "\n", []Signature{sig("2")}, policy + "signatures:\n- " + line("1") + "\n- " + line("2") + "\n"},
		{"after others in flow", policy + "signatures: [ " + line("1") + " ] # c\n", []Signature{sig("2")}, policy + "signatures: [ " + line("1") + " , " + line("2") + "] # c\n"},
		{"empty list", policy + "signatures: []\n", []Signature{sig("2")}, policy + "signatures: [" + line("2") + "]\n"},
		{"in the middle", "signatures:\n  - " + line("1") + "\n\n# head\n" + policy, []Signature{sig("2")}, "signatures:\n  - " + line("1") + "\n  - " + line("2") + "\n\n# head\n" + policy},
		{"beside spec.signature", strings.Replace(exampleJob, "# the end", "  signature: "+line("1")+"\n# the end", 1), []Signature{sig("2")}, strings.Replace(exampleJob, "# the end", "  signature: "+line("1")+"\nsignatures:\n  - "+line("2")+"\n# the end", 1)},
		{"flow job", flow, []Signature{sig("1")}, strings.TrimSuffix(flow, "}}") + ", signature: " + line("1") + "}}"},
		{"flow job, two", flow, []Signature{sig("1"), sig("2")}, strings.TrimSuffix(flow, "}") + ", signatures: [" + line("1") + ", " + line("2") + "]}"},
		{"block scalar that looks like a comment", block, []Signature{sig("1")}, strings.Replace(block, "# the end", "  signature: "+line("1")+"\n# the end", 1)},
		{"already there", policy + "signatures: [" + line("1") + "]\n", []Signature{sig("1")}, policy + "signatures: [" + line("1") + "]\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := InsertSignatures([]byte(tt.src), tt.add)
			if err != nil {
				t.Fatal(err)
			}
			if tt.name == "same twice" { // one signature stands in spec.signature
				tt.want = strings.Replace(exampleJob, "# the end", "  signature: "+line("1")+"\n# the end", 1)
			}
			if tt.name == "block scalar that looks like a comment" { // the comment at the end might belong to the scalar
				tt.want = block + "  signature: " + line("1") + "\n"
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestInsertSignaturesLimit(t *testing.T) {
	var many []Signature
	for i := range MaxSignatures + 1 {
		many = append(many, Signature{By: "openpgp:0123456789ABCDEF0123456789ABCDEF01234567", Alg: "openpgp", Sig: fmt.Sprintf("AA%02d", i)})
	}
	if _, err := InsertSignatures([]byte(exampleJob), many); err == nil || !strings.Contains(err.Error(), "at most 16") {
		t.Errorf("error %v", err)
	}
	if out, err := InsertSignatures([]byte(exampleJob), many[:MaxSignatures]); err != nil || len(Signatures(mustRead(t, string(out)))) != MaxSignatures {
		t.Errorf("error %v", err)
	}
}

// TestIDIgnoresLayout shows that comments, layout, order and signatures have no part in a document's id.
func TestIDIgnoresLayout(t *testing.T) {
	a := mustRead(t, exampleJob)
	text, err := WriteYAML(a)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := InsertSignatures(text, sign(t, a, keys(t, identity.Ed25519)))
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, src := range []string{exampleJob, string(text), string(signed)} {
		id, err := ID(mustRead(t, src))
		if err != nil {
			t.Fatal(err)
		}
		ids[id.String()] = true
	}
	if len(ids) != 1 {
		t.Errorf("one document has the ids %v", ids)
	}
}
