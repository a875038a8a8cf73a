package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"arch.network/agent"
	"arch.network/agent/control/client"
	"arch.network/agent/control/wire"
	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/ledger"
	"arch.network/attest/manifest"
	"arch.network/builder/artifact"
)

// place is everything around the program: keys, files, directories, and jobs that it may run.
type place struct {
	dir, program string
	jobs         [][]byte // signed
	ids          []digest.SHA256
	pids         []int // of the program, in each of its lives
}

// testKey is somebody's key, the same in each test.
func testKey(t testing.TB, name string) *identity.Key {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	k, err := identity.Generate(identity.Ed25519, bytes.NewReader(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signed is a document with alice's signature, who may do everything in a place.
func signed(t testing.TB, doc manifest.Document) []byte {
	t.Helper()
	payload, err := manifest.Canonical(doc)
	if err = errors.Join(doc.Validate(), err); err != nil {
		t.Fatal(err)
	}
	env := &dsse.Envelope{PayloadType: manifest.PayloadType(doc.DocumentKind()), Payload: payload}
	if err := env.Add(t.Context(), testKey(t, "alice")); err != nil {
		t.Fatal(err)
	}
	return env.Marshal()
}

// newPlace makes a place with jobs: modules, and native programs of an image, each of which leaves a line in the directory ran when it runs.
func newPlace(t testing.TB, program string, modules, native int) *place {
	t.Helper()
	dir, err := os.MkdirTemp("", "arch-kill-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nar.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &place{dir: dir, program: program}
	for _, sub := range []string{"state", "tmp", "ran", "content"} {
		if err := errors.Join(os.Mkdir(p.in(sub), 0o700), os.Chmod(p.in(sub), map[bool]fs.FileMode{true: 0o777, false: 0o700}[sub == "ran"])); err != nil {
			t.Fatal(err)
		}
	}
	me := []string{"alice"}
	write := func(name string, doc manifest.Document) {
		if err := os.WriteFile(p.in(name), signed(t, doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one := manifest.TrustGroup{Threshold: 1, Of: me}
	write("trust", &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot", Metadata: manifest.Metadata{Name: "example", Expires: "2100-01-01T00:00:00Z"},
		Spec: manifest.TrustRootSpec{
			Version: 1, Principals: []manifest.Principal{{Name: "alice", Keys: []string{testKey(t, "alice").Public().String()}}},
			Roles: map[string]manifest.TrustGroup{manifest.RoleGovernance: one, manifest.RolePolicy: one, manifest.RoleJob: one},
		},
	})
	write("policy", &manifest.Policy{
		APIVersion: manifest.APIVersion, Kind: "Policy", Metadata: manifest.Metadata{Name: "house", Expires: "2099-01-01T00:00:00Z"},
		Spec: manifest.PolicySpec{
			Version: 1, Issuers: []manifest.PolicyIssuer{{Role: manifest.RoleJob}}, Runtimes: []manifest.Runtime{manifest.RuntimeWasm, manifest.RuntimeOCI},
			Capabilities: manifest.PolicyCapabilities{Allow: []string{"write:" + p.in("ran"), "clock:real", "randomness:real"}},
			Degradations: []string{"cpu", "refused-syscalls", "memory", "processes", "devices", "io", "own-process"},
		},
	})
	for i := range modules {
		p.add(t, example(t, "c-hello-wasm.yaml", fmt.Sprintf("module-%d", i)))
	}
	if native > 0 {
		image := p.image(t)
		for i := range native {
			j := example(t, "oci-sort.yaml", fmt.Sprintf("native-%d", i))
			j.Spec.Image, j.Spec.Inputs, j.Spec.Outputs = image, nil, nil
			j.Spec.Capabilities.FS = []string{"write:" + p.in("ran")}
			j.Spec.Args = []string{"sh", "-c", "echo ran >> " + p.in("ran") + "/" + j.Metadata.Name}
			p.add(t, j)
		}
	}
	return p
}

func (p *place) in(name string) string { return filepath.Join(p.dir, name) }

// image makes an image of Debian's static busybox, and returns its reference.
func (p *place) image(t testing.TB) manifest.Ref {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	bin := p.in("image/bin")
	if err := errors.Join(os.MkdirAll(bin, 0o755), os.WriteFile(filepath.Join(bin, "busybox"), busybox, 0o755)); err != nil {
		t.Fatal(err)
	}
	img := artifact.Image{Platform: "linux/amd64", Config: manifest.BuildImage{Entrypoint: []string{"/bin/busybox"}}}
	d, err := img.WriteLayout(t.Context(), p.in("content/busybox"), p.in("image"))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := manifest.ParseRef("127.0.0.1:5000/busybox@" + d.String())
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// example is an example job under another name.
func example(t testing.TB, file, name string) *manifest.Job {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("..", "..", "tests", "examples", "jobs", file))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := manifest.ReadYAML(src)
	if err != nil {
		t.Fatal(err)
	}
	j := doc.(*manifest.Job)
	j.Metadata.Name, j.Metadata.Owner, j.Metadata.Expires = name, "user:alice", "2098-01-01T00:00:00Z"
	j.Spec.Nonce, j.Spec.Retries = "nonce-0000-"+name, 3
	return j
}

func (p *place) add(t testing.TB, j *manifest.Job) {
	t.Helper()
	data := signed(t, j)
	env, err := dsse.ParseLimit(data, dsse.MaxEnvelope)
	if err != nil {
		t.Fatal(err)
	}
	p.jobs, p.ids = append(p.jobs, data), append(p.ids, env.ID())
}

// builtAgent is the program as it is shipped, static and without the race detector, compiled once for all tests.
func builtAgent(t testing.TB) string {
	t.Helper()
	path, err := buildAgent()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildAgent = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "arch-agent-*")
	if err != nil {
		return "", err
	}
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", dir, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile arch-node-agent: %w\n%s", err, out)
	}
	return filepath.Join(dir, "arch-node-agent"), nil
})

// running is one life of the program.
type running struct {
	cmd   *exec.Cmd
	pid   int // of the program, which may be strace's child
	log   *os.File
	ended chan struct{} // closed when it has ended; then err is its end
	err   error
	node  *client.Client
}

// start begins a life, behind what wrap says, and returns when it is ready, or has ended.
func (p *place) start(t testing.TB, wrap []string, flags ...string) *running {
	t.Helper()
	examples, err := filepath.Abs(filepath.Join("..", "..", "tests", "examples", "jobs"))
	if err != nil {
		t.Fatal(err)
	}
	argv := append(slices.Clone(wrap), append([]string{
		p.program, "--socket", p.in("socket"), "--state", p.in("state"), "--trust", p.in("trust"), "--policy", p.in("policy"),
		"--driver", "namespace", "--offline", "--content", examples, "--content", p.in("content/busybox"),
	}, flags...)...)
	r := &running{cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	r.cmd.Env = append(os.Environ(), "TMPDIR="+p.in("tmp"), "ARCH_STORE=", "ARCH_WORKER=")
	if r.log, err = os.Create(p.in("log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.log.Close() })
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	address := &net.UnixAddr{Name: p.in("notify"), Net: "unixgram"}
	os.Remove(address.Name)
	notes, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Env = append(r.cmd.Env, "NOTIFY_SOCKET="+address.Name)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cmd.Process.Kill() })
	go func() {
		r.err = r.cmd.Wait()
		close(r.ended)
		notes.Close() // nobody tells anything any more
	}()
	note := make([]byte, 4096)
	for {
		if n, err := notes.Read(note); err != nil || strings.Contains(string(note[:n]), "READY=1") {
			break
		}
	}
	r.pid = r.cmd.Process.Pid
	if len(wrap) > 0 {
		r.pid = childOf(r.pid)
	}
	p.pids = append(p.pids, r.pid)
	if r.node, err = client.New(p.in("socket")); err != nil {
		t.Fatal(err)
	}
	return r
}

// said is what it has logged, before it was ready at least.
func (r *running) said() string {
	data, err := os.ReadFile(r.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// dead reports whether it has ended.
func (r *running) dead() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// childOf is the first child of a process, or 0.
func childOf(pid int) int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	first, _, _ := strings.Cut(string(data), " ")
	n, _ := strconv.Atoi(first)
	return n
}

// submit hands in all jobs, and returns the ids of those that were taken.
func (p *place) submit(r *running) (accepted []digest.SHA256, err error) {
	for _, envelope := range p.jobs {
		j, err := r.node.Submit(context.Background(), envelope, "")
		if err != nil {
			return accepted, err
		}
		accepted = append(accepted, j.ID)
	}
	return accepted, nil
}

// await follows the node until all jobs have ended, or it is dead.
func (p *place) await(r *running) error {
	left := map[digest.SHA256]bool{}
	look := func() error {
		for _, id := range p.ids {
			j, err := r.node.Job(context.Background(), id.Hex())
			if err != nil {
				return err
			}
			if left[id] = true; j.State.Ended() {
				delete(left, id)
			}
		}
		return nil
	}
	for after := int64(0); ; {
		if err := look(); err != nil || len(left) == 0 {
			return err
		}
		for e, err := range r.node.Events(context.Background(), after) {
			if late, ok := errors.AsType[*agent.LaggedError](err); ok {
				after = late.Next - 1
				break
			}
			if busy, ok := errors.AsType[*wire.Error](err); ok && busy.Problem.Code == wire.CodeBusy {
				break // it is asked again
			}
			if err != nil {
				return err
			}
			if after = e.Number; e.Job != nil && e.Job.State.Ended() {
				if delete(left, e.Job.ID); len(left) == 0 {
					return nil
				}
			}
		}
	}
}

// stop has it end in order.
func (r *running) stop() error {
	if r.pid > 0 {
		_ = syscall.Kill(r.pid, syscall.SIGTERM)
	}
	<-r.ended
	return r.err
}

// whole looks at what is there after the last life, which has ended in order: what was accepted has ended well, nothing ran that no record tells of or
// more often than that, the ledger is whole, and of no life is anything left.
func (p *place) whole(t testing.TB, jobs []agent.Job, accepted map[digest.SHA256]bool) {
	t.Helper()
	starts := map[string]int{} // in the ledger, by document
	dir := ledger.Dir(p.in("state/ledger"))
	policy, err := dir.ReadPolicy()
	if err != nil {
		t.Fatal(err)
	}
	var chain attest.Chain
	report, err := ledger.Check(t.Context(), policy, dir, func(_ int64, entry []byte) error {
		record, err := attest.ReadRecord(entry)
		if err != nil {
			return err
		}
		kinds := []string{record.Kind}
		for _, b := range record.Before {
			kinds = append(kinds, b.Kind)
		}
		if slices.Contains(kinds, "start") {
			starts[record.Subject[0].Digest["sha256"]]++
		}
		return chain.Add(record)
	})
	if err != nil || !report.OK() || len(report.Damaged()) > 0 {
		t.Errorf("the ledger: %+v, %v", report, err)
	}
	if n, _, err := chain.End(); err != nil || n != report.Tree.Size {
		t.Errorf("a chain of %d in a ledger of %d: %v", n, report.Tree.Size, err)
	}
	for _, j := range jobs {
		delete(accepted, j.ID)
		if j.State != agent.Archived {
			t.Errorf("job %s is %s: %+v", j.Name, j.State, j.Reasons)
		}
		if n := starts[j.ID.Hex()]; n != len(j.Attempts) {
			t.Errorf("job %s has %d attempts, and %d starts are in the ledger", j.Name, len(j.Attempts), n)
		}
		for i, a := range j.Attempts[:max(0, len(j.Attempts)-1)] {
			if a.Finished.IsZero() || a.Reason != "" && a.Exit == 0 && a.Signal == "" {
				t.Errorf("job %s: attempt %d was followed by another, and its end is %q", j.Name, i+1, a.Reason)
			}
		}
		if !strings.HasPrefix(j.Name, "native-") {
			continue
		}
		ran, err := os.ReadFile(filepath.Join(p.in("ran"), j.Name))
		if n := strings.Count(string(ran), "ran\n"); err != nil || n < 1 || n > len(j.Attempts) {
			t.Errorf("job %s ran %d times in %d attempts: %v", j.Name, n, len(j.Attempts), err)
		}
	}
	if len(accepted) > 0 {
		t.Errorf("%d accepted jobs are lost", len(accepted))
	}
	for _, left := range p.left(t) {
		t.Errorf("%s is left", left)
	}
}

// left says what is left of lives that have ended: processes, mounts, control groups, temporary files.
func (p *place) left(t testing.TB) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		mounts, _ := os.ReadFile(path)
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if strings.Contains(string(mounts)+string(line), p.dir) {
			out = append(out, fmt.Sprintf("the process %q", line))
		}
	}
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		for _, pid := range p.pids {
			if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), fmt.Sprintf("arch-%d-", pid)) {
				out = append(out, "the control group "+path)
			}
		}
		return nil // others come and go
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	err = filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(p.dir, path)
		if temporary.MatchString(rel) {
			out = append(out, "the file "+rel)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return out
}

// temporary are files that somebody was still writing. Those in tmp are nobody's, either.
var temporary = regexp.MustCompile(`^tmp/|\.new$|\.tmp|/tmp[./]|/\.[^/]+\.\d+$`)

// liveOn has the next life go on until every job has ended, and looks at everything.
func (p *place) liveOn(t testing.TB, accepted map[digest.SHA256]bool) {
	t.Helper()
	r := p.start(t, nil)
	for id := range accepted { // before anything is handed in again
		if _, err := r.node.Job(t.Context(), id.Hex()); err != nil {
			t.Errorf("an accepted job is lost: %v", err)
		}
	}
	_, err := p.submit(r)
	if err == nil {
		err = p.await(r)
	}
	if err != nil {
		r.stop()
		t.Fatalf("%v\n%s", err, r.said())
	}
	var jobs []agent.Job
	for _, id := range p.ids {
		j, err := r.node.Job(t.Context(), id.Hex())
		if err != nil {
			t.Error(err)
		}
		jobs = append(jobs, j)
	}
	if err := r.stop(); err != nil {
		t.Errorf("%v\n%s", err, r.said())
	}
	p.whole(t, jobs, accepted)
}

// killAt has the program killed at a system call, the when-th of its kind of a thread, while it takes and runs jobs, and starts it again. False: nothing
// was killed.
func killAt(t *testing.T, program, call string, when int) (killed bool) {
	t.Helper()
	p := newPlace(t, program, 1, 1)
	trace := p.in("trace")
	r := p.start(t, []string{"strace", "-f", "-qq", "--seccomp-bpf", "-o", trace, "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, when)})
	accepted := map[digest.SHA256]bool{}
	ids, err := p.submit(r)
	for _, id := range ids {
		accepted[id] = true
	}
	if err == nil {
		_ = p.await(r)
	}
	_ = r.stop()
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	p.liveOn(t, accepted)
	return bytes.Contains(data, []byte("killed by SIGKILL"))
}

// A program that was told to stop goes on when it is started again, without anybody's word; one that an operator drained does not.
func TestStoppedAndStarted(t *testing.T) {
	p := newPlace(t, builtAgent(t), 1, 0)
	if r := p.start(t, nil); r.stop() != nil {
		t.Fatalf("%v\n%s", r.err, r.said())
	}
	r := p.start(t, nil)
	if s, err := r.node.Status(t.Context()); err != nil || s.Draining {
		t.Fatalf("it starts nothing: %+v, %v", s.Drain, err)
	}
	if _, err := p.submit(r); err != nil {
		t.Fatal(err)
	}
	if err := p.await(r); err != nil {
		t.Error(err)
	}
	if err := r.node.Act(t.Context(), agent.Act{Verb: agent.VerbDrain, By: "uid:0", Reason: "a new disk"}); err != nil {
		t.Error(err)
	}
	if r.stop() != nil {
		t.Fatalf("%v\n%s", r.err, r.said())
	}
	r = p.start(t, nil)
	if s, err := r.node.Status(t.Context()); err != nil || !s.Draining || s.Drain == nil || s.Drain.Reason != "a new disk" {
		t.Errorf("it forgot that it was drained: %+v, %v", s.Drain, err)
	}
	if r.stop() != nil {
		t.Errorf("%v\n%s", r.err, r.said())
	}
}

// durableCalls are those by which the program changes what is on the disk.
var durableCalls = []string{"fsync", "fdatasync", "renameat", "pwrite64", "ftruncate", "unlinkat", "mkdirat", "linkat", "write"}

// The program is killed at each call that changes what is on the disk, while modules and native programs run: the next life knows what was accepted,
// nothing ran that no record tells of, and nothing of the first is left. ARCH_KILL_SWEEP=all kills it at every call, else it is killed at a few.
func TestKillSweep(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skipf("cannot run here: %v", err)
	}
	all := os.Getenv("ARCH_KILL_SWEEP") == "all"
	program, kills := builtAgent(t), 0
	for i, call := range durableCalls {
		if !all && i%2 == 1 {
			continue
		}
		t.Run(call, func(t *testing.T) {
			at := []int{3 + i%3}
			if all {
				at = nil
				for n := 1; n <= 60; n++ {
					at = append(at, n)
				}
			}
			misses, before, failed := 0, kills, false
			defer func() { t.Logf("%d kills", kills-before) }()
			for _, when := range at {
				if killAt(t, program, call, when) {
					kills++
					misses = 0
				} else if misses++; misses == 3 {
					break
				}
				if t.Failed() && !failed {
					t.Errorf("it begins with a kill at %s %d", call, when)
					failed = true
				}
			}
		})
	}
	t.Logf("%d kills", kills)
	if kills == 0 {
		t.Error("nobody was killed")
	}
}
