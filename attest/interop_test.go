package attest_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"arch.network/attest"
	"arch.network/attest/dsse"

	provenancepb "github.com/in-toto/attestation/go/predicates/provenance/v1"
	vsapb "github.com/in-toto/attestation/go/predicates/vsa/v1"
	statementpb "github.com/in-toto/attestation/go/v1"
	intoto "github.com/in-toto/in-toto-golang/in_toto"
	slsa "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"
	sslib "github.com/secure-systems-lab/go-securesystemslib/dsse"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/google/go-cmp/cmp"
)

// What we write is read by the specification's own library, field by field, without unknown members.
func TestInteropAttestation(t *testing.T) {
	w := newWorld(t)
	summary, _ := w.vsa(w.verify(w.input(w.receipt(w.alice, w.bob))), summaryOptions())
	for name, s := range map[string]*attest.Statement{
		"claim": w.claim, "provenance": w.provenance(w.claim), "negative": w.negative(attest.Differs), "summary": summary,
	} {
		t.Run(name, func(t *testing.T) {
			data, err := s.Encode()
			if err != nil {
				t.Fatal(err)
			}
			var pb statementpb.Statement
			if err := protojson.Unmarshal(data, &pb); err != nil {
				t.Fatal(err)
			}
			if err := pb.Validate(); err != nil {
				t.Error(err)
			}
			if pb.GetPredicateType() != s.PredicateType || len(pb.GetSubject()) != len(s.Subject) ||
				pb.GetSubject()[0].GetDigest()["sha256"] != s.Subject[0].Digest["sha256"] {
				t.Errorf("read %v", &pb)
			}
		})
	}
}

func TestInteropProvenance(t *testing.T) {
	w := newWorld(t)
	s := w.provenance(w.claim)
	var pb provenancepb.Provenance
	if err := protojson.Unmarshal(s.Predicate, &pb); err != nil {
		t.Fatal(err)
	}
	if err := pb.Validate(); err != nil {
		t.Error(err)
	}
	if got := len(pb.GetBuildDefinition().GetResolvedDependencies()); got != 3 {
		t.Errorf("%d dependencies", got)
	}
	if got := pb.GetRunDetails().GetMetadata().GetStartedOn().AsTime(); !got.Equal(run().Started) {
		t.Errorf("startedOn %v", got)
	}
	var other slsa.ProvenancePredicate //lint:ignore SA1019 oss-rebuild and others read provenance with it
	dec := json.NewDecoder(bytes.NewReader(s.Predicate))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&other); err != nil {
		t.Fatal(err)
	}
	if other.RunDetails.Builder.ID != attest.BuilderHermetic || other.BuildDefinition.BuildType != attest.BuildType {
		t.Errorf("read %+v", other)
	}
}

// The library knows no verifier.version, and writes dependency levels as strings; the rest must agree both ways.
func TestInteropVSA(t *testing.T) {
	w := newWorld(t)
	opts := summaryOptions()
	opts.VerifierVersion = nil
	s, v := w.vsa(w.verify(w.input(w.receipt(w.alice, w.bob))), opts)
	v.DependencyLevels = attest.Levels{attest.LevelBuild1: 3}
	plain, err := attest.NewStatement(s.Subject, v)
	if err != nil {
		t.Fatal(err)
	}
	var pb vsapb.VerificationSummary
	if err := protojson.Unmarshal(plain.Predicate, &pb); err != nil {
		t.Fatal(err)
	}
	theirs, err := protojson.Marshal(&pb)
	if err != nil {
		t.Fatal(err)
	}
	back, err := (&attest.Statement{Type: plain.Type, Subject: plain.Subject, PredicateType: plain.PredicateType, Predicate: compact(t, theirs)}).VSA()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v, back); diff != "" {
		t.Errorf("summary changed on the way through the library (-want +got):\n%s", diff)
	}
}

func compact(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Our envelopes and statements are those of the other libraries, byte for byte where they are signed.
func TestInteropEnvelope(t *testing.T) {
	w := newWorld(t)
	env := w.sign(w.claim, w.alice)
	var theirs sslib.Envelope
	if err := json.Unmarshal(env.Marshal(), &theirs); err != nil {
		t.Fatal(err)
	}
	payload, err := theirs.DecodeB64Payload()
	if err != nil || !bytes.Equal(payload, env.Payload) || theirs.PayloadType != intoto.PayloadType {
		t.Errorf("payload type %q, payload equal %v: %v", theirs.PayloadType, bytes.Equal(payload, env.Payload), err)
	}
	if !bytes.Equal(sslib.PAE(theirs.PayloadType, payload), dsse.PAE(env.PayloadType, env.Payload)) {
		t.Error("the bytes that are signed are others")
	}
	var statement intoto.Statement //lint:ignore SA1019 it is how the library reads statements
	if err := json.Unmarshal(payload, &statement); err != nil {
		t.Fatal(err)
	}
	want := w.claim.Subject[0]
	if statement.PredicateType != attest.ClaimType || statement.Subject[0].Name != want.Name || statement.Subject[0].Digest["sha256"] != want.Digest["sha256"] {
		t.Errorf("read %+v", statement.StatementHeader)
	}
}
