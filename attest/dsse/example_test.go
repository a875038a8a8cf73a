package dsse_test

import (
	"bytes"
	"context"
	"fmt"

	"arch.network/attest/dsse"
	"arch.network/attest/identity"
)

// Two people sign a document; a verifier who trusts both and a third counts them.
func Example() {
	ctx := context.Background()
	var trusted []identity.PublicKey
	var people []*identity.Key
	for i := range byte(3) {
		key, err := identity.Generate(identity.Ed25519, bytes.NewReader(bytes.Repeat([]byte{i}, 32)))
		if err != nil {
			fmt.Println(err)
			return
		}
		people = append(people, key)
		trusted = append(trusted, key.Public())
	}
	env, err := dsse.Sign(ctx, "application/vnd.example.note.v1+json", []byte(`{"note":"hello"}`), people[0])
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := env.Add(ctx, people[2]); err != nil {
		fmt.Println(err)
		return
	}

	received, err := dsse.Parse(env.Marshal())
	if err != nil {
		fmt.Println(err)
		return
	}
	if signers := received.Verified(trusted); len(signers) >= 2 && received.PayloadType == "application/vnd.example.note.v1+json" {
		fmt.Printf("%s by %d of %d\n", received.Payload, len(signers), len(trusted))
	}
	// Output: {"note":"hello"} by 2 of 3
}
