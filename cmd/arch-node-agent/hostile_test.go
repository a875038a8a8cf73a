package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"arch.network/agent"
	"arch.network/attest/ledger"
	"arch.network/attest/ledger/notekey"
)

// memory is what a process has, in bytes: what is resident, or the most that ever was.
func (r *running) memory(t *testing.T, field string) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), field+":")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// address is where the program listens over TCP.
func (r *running) address(t *testing.T) string {
	t.Helper()
	_, rest, ok := strings.Cut(r.said(), "msg=listening address=127.")
	if !ok {
		t.Fatalf("it does not say where it listens:\n%s", r.said())
	}
	return "127." + strings.Fields(rest)[0]
}

// crowd opens connections that send a text and then say nothing more, as many as the limit of this process lets it.
func crowd(t *testing.T, n int, network, address, text string) (conns []net.Conn) {
	t.Helper()
	for range n {
		c, err := net.Dial(network, address)
		if err != nil {
			break // nobody takes more: that is an answer
		}
		t.Cleanup(func() { c.Close() })
		_, _ = io.WriteString(c, text)
		conns = append(conns, c)
	}
	return conns
}

// crowdSize is how many connections come at once; ARCH_CROWD says another number.
func crowdSize(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("ARCH_CROWD"))
	if err != nil {
		n = 1500
	}
	limit := unix.Rlimit{Cur: uint64(n + 512), Max: uint64(n + 512)}
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		t.Fatal(err)
	}
	if have.Cur < limit.Cur {
		if limit.Max = max(limit.Max, have.Max); unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
			t.Skip("cannot run here: this process may not open so many connections")
		}
	}
	return n
}

// A crowd of readers of events, of connections that never finish their request, and of bodies without an end costs bounded memory, takes nobody's place
// on the socket, and a job that comes meanwhile runs.
func TestCrowd(t *testing.T) {
	n := crowdSize(t)
	p := newPlace(t, builtAgent(t), 1, 0)
	r := p.start(t, nil, "--listen", "127.0.0.1:0", "--read")
	before := r.memory(t, "VmRSS")
	tcp := r.address(t)
	events := crowd(t, n, "tcp", tcp, "GET /v1/events?after=0 HTTP/1.1\r\nHost: "+tcp+"\r\n\r\n")
	slow := crowd(t, n/4, "tcp", tcp, "POST /v1/jobs HTTP/1.1\r\nHost: "+tcp+"\r\nX-")
	local := crowd(t, min(n/4, 400), "unix", p.in("socket"), "POST /v1/jobs HTTP/1.1\r\nHost: node\r\nX-")
	if len(events) == 0 || len(slow) == 0 || len(local) == 0 {
		t.Fatalf("%d, %d and %d connections were made", len(events), len(slow), len(local))
	}
	if _, err := p.submit(r); err != nil {
		t.Fatalf("while %d others are connected: %v", len(events)+len(slow)+len(local), err)
	}
	if err := p.await(r); err != nil {
		t.Fatal(err)
	}
	// A body of which the first byte is not there yet, or that is larger than any document.
	giant := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", p.in("socket"))
	}}}
	defer giant.CloseIdleConnections()
	for _, path := range []string{"/v1/jobs", "/v1/directives"} {
		resp, err := giant.Post("http://node"+path, "application/json", io.LimitReader(forever{}, 1<<30))
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("a body of 1 GiB to %s: %s", path, resp.Status)
			}
		}
	}
	peak := r.memory(t, "VmHWM")
	t.Logf("%d readers of events, %d and %d slow ones: %d MiB before, %d MiB at most", len(events), len(slow), len(local), before>>20, peak>>20)
	if peak > before+int64(n)*128<<10+128<<20 {
		t.Errorf("its memory came to %d MiB from %d MiB", peak>>20, before>>20)
	}
	if err := r.stop(); err != nil {
		t.Errorf("%v\n%s", err, r.said())
	}
}

// forever are bytes without an end.
type forever struct{}

func (forever) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte(" "), len(p))), nil }

// With few file descriptors, of which a crowd over TCP takes what it gets, a node does its work for those on the socket.
func TestFewDescriptors(t *testing.T) {
	p := newPlace(t, builtAgent(t), 1, 0)
	r := p.start(t, []string{"prlimit", "--nofile=64:64", "--"}, "--listen", "127.0.0.1:0", "--read")
	r.pid = r.cmd.Process.Pid // prlimit becomes the program
	if r.dead() {
		t.Fatalf("it ended: %v\n%s", r.err, r.said())
	}
	conns := crowd(t, 200, "tcp", r.address(t), "GET /v1/events?after=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	if len(conns) == 0 {
		t.Fatal("nobody could connect")
	}
	accepted, err := p.submit(r)
	if err == nil {
		err = p.await(r)
	}
	if err != nil {
		t.Errorf("while they are there: %v\n%s", err, r.said())
	}
	if r.dead() {
		t.Errorf("it ended: %v\n%s", r.err, r.said())
	}
	if strings.Contains(r.said(), "panic") {
		t.Error(r.said())
	}
	if err := r.stop(); err != nil {
		t.Errorf("%v\n%s", err, r.said())
	}
	taken := map[[32]byte]bool{}
	for _, id := range accepted {
		taken[id] = true
	}
	if len(taken) != len(p.jobs) {
		t.Errorf("%d of %d jobs were taken", len(taken), len(p.jobs))
	}
}

// copyTree copies a tree, modes and all, to a place where nothing is.
func copyTree(to, from string) error {
	if out, err := exec.Command("cp", "-a", "-T", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// A node has another one cosign its ledger. If its state is brought back from an old copy, but for the record of what was signed, it does not start;
// with that record brought back, too, its witness does not cosign the other history, and whoever asks for the witness does not believe it.
func TestRestoredNode(t *testing.T) {
	program := builtAgent(t)
	a, b := newPlace(t, program, 2, 0), newPlace(t, program, 0, 0)
	keys := map[*place]*notekey.Keys{}
	for at, name := range map[*place]string{a: "a.example/ledger", b: "b.example/ledger"} {
		k, err := notekey.Generate(name, bytes.NewReader(bytes.Repeat([]byte(name), 64)))
		if err != nil {
			t.Fatal(err)
		}
		if err := k.WriteFile(at.in("keys")); err != nil {
			t.Fatal(err)
		}
		keys[at] = k
	}
	logs := func(k *notekey.Keys) string { return "log " + strings.Join(k.LogVKeys(), "\nlog ") + "\n" }
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(b.in("others"), logs(keys[a])+"quorum none\n")
	witness := b.start(t, nil, "--listen", "127.0.0.1:0", "--ledger-key", b.in("keys"), "--witness-for", b.in("others"))
	url := "http://" + witness.address(t) + "/witness"
	write(a.in("ledger.policy"), logs(keys[a])+fmt.Sprintf("witness b %s %s\nquorum b\n", keys[b].WitnessVKeys()[0], url))
	flags := []string{"--ledger-key", a.in("keys"), "--ledger-policy", a.in("ledger.policy")}
	cosigned := func(r *running, least int64) agent.Status {
		t.Helper()
		for {
			s, err := r.node.Status(t.Context())
			if err != nil {
				t.Fatalf("%v\n%s", err, r.said())
			}
			if w := s.Ledger.Witnesses; len(w) == 1 && (w[0].Size >= least || w[0].Error != "") {
				return s
			}
		}
	}
	jobs := a.jobs
	life := func(jobs [][]byte, more ...string) *running {
		t.Helper()
		r := a.start(t, nil, append(flags, more...)...)
		a.jobs = jobs
		accepted, err := a.submit(r)
		if err != nil {
			t.Fatalf("%v\n%s", err, r.said())
		}
		a.ids = accepted
		if err := a.await(r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	end := func(r *running) {
		t.Helper()
		if err := r.stop(); err != nil {
			t.Fatalf("%v\n%s", err, r.said())
		}
	}
	end(life(nil))
	old := filepath.Join(t.TempDir(), "state")
	if err := copyTree(old, a.in("state")); err != nil {
		t.Fatal(err)
	}
	first := life(jobs[:1])
	s, err := first.node.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s = cosigned(first, s.Ledger.Size); s.Ledger.Witnesses[0].Error != "" {
		t.Fatalf("%+v", s.Ledger.Witnesses[0])
	}
	end(first)

	restore := func(keep ...string) {
		t.Helper()
		kept := t.TempDir()
		for _, name := range keep {
			if err := copyTree(filepath.Join(kept, name), a.in("state/"+name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.RemoveAll(a.in("state")); err != nil {
			t.Fatal(err)
		}
		if err := copyTree(a.in("state"), old); err != nil {
			t.Fatal(err)
		}
		for _, name := range keep {
			if err := os.RemoveAll(a.in("state/" + name)); err != nil {
				t.Fatal(err)
			}
			if err := copyTree(a.in("state/"+name), filepath.Join(kept, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	restore("signed")
	r := a.start(t, nil, flags...)
	if <-r.ended; r.err == nil || !strings.Contains(r.said(), "it was restored from an old copy") || !strings.Contains(r.said(), "hint: bring back the newest copy") {
		t.Errorf("an old copy of all but the record: %v\n%s", r.err, r.said())
	}
	restore()
	forked := life(jobs[1:]) // nothing here knows better
	s = cosigned(forked, 1<<40)
	if w := s.Ledger.Witnesses[0]; w.Error == "" {
		t.Errorf("the witness cosigns an old copy that went another way: %+v", w)
	} else {
		t.Logf("the witness of an old copy that went another way: %s (%s)", w.Error, w.Cure)
	}
	end(forked)
	policy, err := ledger.ParsePolicy([]byte(logs(keys[a]) + fmt.Sprintf("witness b %s\nquorum b\n", keys[b].WitnessVKeys()[0])))
	if err != nil {
		t.Fatal(err)
	}
	data, err := ledger.Dir(a.in("state/ledger")).ReadCheckpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if signed, err := policy.Open(data); err == nil {
		t.Errorf("whoever asks for the witness believes the other history of %d entries", signed.Size)
	}
	end(witness)
}
