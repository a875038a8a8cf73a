package sequencer_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/identity"
	"arch.network/attest/ledger/notekey"
	"arch.network/attest/ledger/sequencer"
)

const origin = "node.example/ledger"

func logKeys(t testing.TB, name string) *notekey.Keys {
	t.Helper()
	k, err := notekey.Generate(name, bytes.NewReader(bytes.Repeat([]byte(name), 64)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func nodeKey(t testing.TB, seed byte) *identity.Key {
	t.Helper()
	k, err := identity.Generate(identity.Ed25519, bytes.NewReader(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// options are of a log in dir, with its record beside it.
func options(t testing.TB, dir string) sequencer.Options {
	t.Helper()
	return sequencer.Options{Dir: filepath.Join(dir, "log"), Signed: filepath.Join(dir, "state", "signed"), Keys: logKeys(t, origin)}
}

func open(t testing.TB, opts sequencer.Options) *sequencer.Log {
	t.Helper()
	l, err := sequencer.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(t.Context()) })
	return l
}

func closeLog(t testing.TB, l *sequencer.Log) {
	t.Helper()
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func recorder(t testing.TB, l *sequencer.Log) *sequencer.Recorder {
	t.Helper()
	r, err := sequencer.NewRecorder(t.Context(), l, sequencer.RecorderOptions{Signer: nodeKey(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func decision(i int) (attest.Decision, attest.ResourceDescriptor) {
	return attest.Decision{Kind: "admission", Verdict: "accepted", Summary: fmt.Sprintf("Job %d was accepted.", i)},
		attest.Document("job", digest.Of(fmt.Append(nil, i)))
}
