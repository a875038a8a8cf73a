package admission_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"arch.network/agent/admission"
	"arch.network/agent/policy"
	"arch.network/agent/replay"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

// Example shows what a node does with an envelope that was handed in: judge, remember the nonce, and only then act. The
// second time, the same envelope is refused.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	check(err)
	defer os.RemoveAll(dir)
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	envelope := exampleFiles(dir)

	keeper, err := policy.Open(policy.Options{
		TrustRoot: filepath.Join(dir, "root.json"), Policy: filepath.Join(dir, "policy.json"), State: dir,
		Now: func() time.Time { return now },
	})
	check(err)
	window, err := replay.Open(replay.Options{Path: filepath.Join(dir, "replay")})
	check(err)
	defer window.Close()

	for range 2 {
		active, err := keeper.Current(now)
		check(err)
		in := admission.Input{Active: active, Names: []string{"node-1"}, At: now}
		in.Proposal = admission.Open(envelope, active, now)
		var entry replay.Entry
		var once bool
		if doc := in.Proposal.Job; doc != nil {
			if entry, once, err = replay.EntryOf(doc, in.Proposal.ID); err == nil && once {
				in.Replay = window.Seen(entry)
			}
		}
		verdict := admission.Judge(in)
		if verdict.Admitted && once {
			check(window.Spend(entry, now)) // durable before anything is acted upon
		}
		fmt.Println(verdict.Summary())
	}
	// Output:
	// job count is admitted: alice signed as role job, policy house version 1
	// job count is refused: this document was accepted before, and its nonce lets it count once
}

// exampleFiles writes a trust root and a policy, and returns the envelope of a job, all signed by alice.
func exampleFiles(dir string) []byte {
	seed := sha256.Sum256([]byte("alice"))
	alice, err := identity.Generate(identity.Ed25519, bytes.NewReader(seed[:]))
	check(err)
	one := manifest.TrustGroup{Threshold: 1, Of: []string{"alice"}}
	root := &manifest.TrustRoot{APIVersion: manifest.APIVersion, Kind: "TrustRoot", Metadata: manifest.Metadata{Name: "net", Expires: "2027-01-01T00:00:00Z"}}
	root.Spec = manifest.TrustRootSpec{
		Version: 1, Principals: []manifest.Principal{{Name: "alice", Keys: []string{alice.Public().String()}}},
		Roles: map[string]manifest.TrustGroup{manifest.RoleGovernance: one, manifest.RolePolicy: one, manifest.RoleJob: one},
	}
	house := newPolicy()
	house.Spec.Version = 1
	files := [][]byte{}
	for _, doc := range []manifest.Document{root, house, newJob()} {
		payload, err := manifest.Canonical(doc)
		check(err)
		env := &dsse.Envelope{PayloadType: manifest.PayloadType(doc.DocumentKind()), Payload: payload}
		check(env.Add(context.Background(), alice))
		files = append(files, env.Marshal())
	}
	check(os.WriteFile(filepath.Join(dir, "root.json"), files[0], 0o644))
	check(os.WriteFile(filepath.Join(dir, "policy.json"), files[1], 0o644))
	return files[2]
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
