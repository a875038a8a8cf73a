package nodetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strconv"
	"testing"

	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/manifest"
)

// Does says what a job of the suite does: it prints, then waits to be ended if it hangs, then ends.
type Does struct {
	Print string // on stdout
	Exit  int
	Hang  bool
	Odd   bool // shows an anomaly; only Play knows it
}

// Document returns a valid Job whose arguments say what it does. Play does it.
//
// Two documents are never the same.
func Document(t testing.TB, name string, does Does) *manifest.Job {
	t.Helper()
	program := digest.Of([]byte("a program"))
	args := []string{strconv.QuoteToASCII(does.Print), strconv.Itoa(does.Exit), strconv.FormatBool(does.Hang), strconv.FormatBool(does.Odd)}
	doc := &manifest.Job{APIVersion: manifest.APIVersion, Kind: "Job", Metadata: manifest.Metadata{Name: name, Owner: "user:tester"}}
	ref, err := manifest.ParseRef("tree:program#" + program.SRI())
	if err != nil {
		t.Fatal(err)
	}
	doc.Spec = manifest.JobSpec{Image: ref, Runtime: manifest.RuntimeWasm, Args: args, Nonce: rand.Text()}
	return doc
}

// Play is an Options.Execute that does what Document says.
func Play(ctx context.Context, job *manifest.Job, stdout, _ io.Writer) Result {
	args := job.Spec.Args
	text, err := strconv.Unquote(args[0])
	if err != nil {
		return Result{Exit: 1}
	}
	io.WriteString(stdout, text)
	if args[2] == "true" {
		<-ctx.Done()
	}
	exit, err := strconv.Atoi(args[1])
	if err != nil {
		exit = 1
	}
	res := Result{Exit: exit, Gas: uint64(len(text)), Outputs: map[string][]byte{"printed": []byte(text)}}
	if args[3] == "true" {
		res.Anomalies = []string{"output: it was asked to be odd"}
	}
	return res
}

// Sign returns the envelope of a document, signed by a new key.
func Sign(t testing.TB, doc manifest.Document) []byte {
	t.Helper()
	key, err := identity.Generate(identity.Ed25519, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(); err != nil {
		t.Fatal(err)
	}
	form, err := manifest.Canonical(doc)
	if err != nil {
		t.Fatal(err)
	}
	env, err := dsse.Sign(t.Context(), manifest.PayloadType(doc.DocumentKind()), form, key)
	if err != nil {
		t.Fatal(err)
	}
	return env.Marshal()
}

// Directive returns the signed order of an act. A zero job is left out.
func Directive(t testing.TB, action string, job digest.SHA256, reason string) []byte {
	t.Helper()
	doc := &manifest.Directive{
		APIVersion: manifest.APIVersion, Kind: "Directive", Metadata: manifest.Metadata{Name: fmt.Sprintf("order-%s", action)},
		Spec: manifest.DirectiveSpec{Class: manifest.ClassC, Action: action, Reason: reason},
	}
	if !job.IsZero() {
		doc.Spec.Target = job.String()
	}
	return Sign(t, doc)
}
