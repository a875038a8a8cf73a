package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/agent"
	"arch.network/agent/control/client"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/notekey"
	"arch.network/attest/ledger/sequencer"
	"arch.network/attest/ledger/tilehttp"
	"arch.network/attest/ledger/witness"
)

// TestWitnesses has the program's ledger cosigned by a witness here and by one that is away, and the program cosign a ledger of ours; a fork of
// ours it refuses.
func TestWitnesses(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	generate := func(name string) *notekey.Keys {
		k, err := notekey.Generate(name, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	theirs, ours, absent := generate("node.example/ledger"), generate("ours.example/ledger"), generate("absent.example")
	if err := theirs.WriteFile(in("ledger.key")); err != nil {
		t.Fatal(err)
	}
	parse := func(text string) *ledger.Policy {
		p, err := ledger.ParsePolicy([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	logs := func(k *notekey.Keys) string { return "log " + strings.Join(k.LogVKeys(), "\nlog ") + "\n" }

	w, err := witness.NewServer(witness.Options{Dir: in("witness"), Keys: ours, Policy: parse(logs(theirs) + "quorum none")})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	asked := make(chan struct{}, 1024)
	here := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.ServeHTTP(rw, r)
		asked <- struct{}{}
	}))
	defer here.Close()
	away := httptest.NewServer(nil)
	away.Close()
	policy := logs(theirs) + fmt.Sprintf("witness here %s %s\nwitness pq %s %s\nwitness away %s %s\ngroup both all here pq\nquorum both\n",
		ours.WitnessVKeys()[0], here.URL, ours.WitnessVKeys()[1], here.URL, absent.WitnessVKeys()[0], away.URL)
	for name, text := range map[string]string{"ledger.policy": policy, "others": logs(ours) + "quorum none\n", "foreign": logs(ours) + "quorum none\n"} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := func(ledgerPolicy string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), os.Args[0], "--socket", in("socket"), "--state", in("state"), "--trust", in("trust"), "--policy", in("policy"),
			"--driver", "namespace", "--ledger-key", in("ledger.key"), "--ledger-policy", in(ledgerPolicy), "--witness-for", in("others"))
		c.Env = append(os.Environ(), asAgent+"=real")
		return c
	}
	if out, err := command("foreign").CombinedOutput(); err == nil || !strings.Contains(string(out), "has no log node.example/ledger") {
		t.Errorf("a policy of other ledgers: %v\n%s", err, out)
	}
	if out, err := command("nothing").CombinedOutput(); err == nil || !strings.Contains(string(out), "read ledger policy") {
		t.Errorf("no policy: %v\n%s", err, out)
	}
	var log bytes.Buffer
	c := command("ledger.policy")
	c.Stderr = &log
	ready := readiness(t, c)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	ready()
	node, err := client.New(in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	<-asked
	var status agent.Status
	for cosigned := false; !cosigned; {
		if status, err = node.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		list := status.Ledger.Witnesses
		cosigned = len(list) == 3 && *status.Ledger.Cosigned > 0 && list[2].Failures > 0
	}
	for i, name := range []string{"here", "pq", "away"} {
		w := status.Ledger.Witnesses[i]
		if w.Name != name || (w.Size > 0) == (name == "away") || w.At.IsZero() != (name == "away") || (w.Error != "") != (name == "away") {
			t.Errorf("%+v", w)
		}
	}

	// Whoever demands the quorum has it with the checkpoint that is published.
	local := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", in("socket"))
	}}}
	defer local.CloseIdleConnections()
	remote, err := tilehttp.NewClient("http://node.example/ledger", local)
	if err != nil {
		t.Fatal(err)
	}
	if report, err := ledger.Check(t.Context(), parse(policy), remote, nil); err != nil || !report.OK() {
		t.Errorf("%+v, %v", report, err)
	}
	get := func(path string) string {
		resp, err := local.Get("http://node.example" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for path, want := range map[string]string{
		"/metrics": `arch_witness_entries{witness="pq"} ` + fmt.Sprint(status.Ledger.Witnesses[1].Size), "/ledger": "<td>away</td><td>0</td><td>never</td>",
	} {
		if text := get(path); !strings.Contains(text, want) {
			t.Errorf("%s has no %q:\n%s", path, want, text)
		}
	}

	// It is a witness, too.
	cosign := func(history string) error {
		l, err := sequencer.Open(t.Context(), sequencer.Options{Dir: in(history), Signed: in(history + ".signed"), Keys: ours})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close(context.Background())
		index, err := l.Append(t.Context(), []byte(history))
		if err != nil {
			t.Fatal(err)
		}
		proof, err := l.Proof(t.Context(), index)
		if err != nil {
			t.Fatal(err)
		}
		_, prover, err := l.Prover(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p := parse(logs(ours) + fmt.Sprintf("witness node %s http://node.example/witness\nquorum node\n", theirs.WitnessVKeys()[0]))
		_, err = witness.NewClient(p, local).Cosign(t.Context(), proof.Note, prover.Consistency)
		return err
	}
	if err := cosign("history"); err != nil {
		t.Error(err)
	}
	if refused, ok := errors.AsType[*witness.RefusedError](cosign("another")); !ok || refused.Status != http.StatusConflict {
		t.Errorf("a fork: %v", refused)
	}
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v\n%s", err, log.String())
	}
}
