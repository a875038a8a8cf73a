package main

import (
	"bytes"
	"context"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"arch.network/agent/archive"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/builder/store"
)

// cmdForge makes of an archive file that of a node which lies: its result has used one unit of gas more, and is signed by a key of its own.
func cmdForge(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: forge FILE OUT")
	}
	ctx := context.Background()
	s, err := store.Open(ts.MkAbs("forge-store"))
	ts.Check(err)
	defer s.Close()
	b, err := archive.ReadFile(ctx, ts.MkAbs(args[0]), s, archive.ImportOptions{})
	ts.Check(err)
	env, err := dsse.ParseLimit(b.Statements[b.Entry.Result], archive.MaxStatement)
	ts.Check(err)
	claim, err := attest.ParseStatement(env.Payload)
	ts.Check(err)
	result, err := claim.JobResult()
	ts.Check(err)
	result.Gas.Used++
	b.Entry.Gas++
	lie, err := attest.NewStatement(claim.Subject, result)
	ts.Check(err)
	key, err := identity.Generate(identity.Ed25519, nil)
	ts.Check(err)
	signed, err := lie.Sign(ctx, key)
	ts.Check(err)
	b.Entry.Result, b.Entry.Runs, b.Entry.Node = signed.ID(), []digest.SHA256{}, key.Public().String()
	b.Statements = map[digest.SHA256][]byte{signed.ID(): signed.Marshal()}
	var out bytes.Buffer
	ts.Check(archive.Export(ctx, &out, b, s))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), out.Bytes(), 0o644))
}
