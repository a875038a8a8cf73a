package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"arch.network/agent"
	"arch.network/agent/executor"
	"arch.network/agent/node"
	"arch.network/attest/digest"
	"arch.network/attest/dsse"
	"arch.network/attest/identity"
	"arch.network/attest/ledger/notekey"
	"arch.network/attest/manifest"
	"arch.network/builder/source"
	"arch.network/builder/store"
	"arch.network/runner/job"
	"arch.network/runner/namespace"
	"arch.network/runner/wasm"
)

// flying is how many jobs are on their way through the node at a time, and how many may be executed: most wait for the disk.
const flying = 32

// BenchmarkNode takes small signed jobs through a whole node, from the document that is handed in to the archive entry, with everything
// real: verified, judged, in the ledger at each step, run in a worker that is kept for its owner, metered, accounted for in signed
// statements, and durable. The node's CPU time is this process's, that of the client left out of it; the worker's is as its control group
// counts it. p50 and p99 are of the time from handing in to archived, with 32 jobs on their way. x-floor is how many times
// as much CPU time, of node and worker, that is as what no node can leave out.
func BenchmarkNode(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(300)) // as in the agent
	w := newNodeWorld(b)
	n, stop := w.open(b)
	defer stop()
	envelopes := make([][]byte, b.N+flying)
	for i := range envelopes {
		envelopes[i] = w.hello(b, i)
	}
	life := follow(b, n)
	defer life.stop()
	life.run(b, n, envelopes[b.N:]) // what is kept is made, and the code cached
	life.reset()
	before, began := selfCPU(b), time.Now()
	b.ResetTimer()
	life.run(b, n, envelopes[:b.N])
	b.StopTimer()
	took, cpu := time.Since(began), selfCPU(b)-before
	jobs := float64(b.N)
	slices.Sort(life.took)
	b.ReportMetric(jobs/took.Seconds(), "jobs/s")
	b.ReportMetric(cpu.Seconds()*1e6/jobs, "node-µs/job")
	b.ReportMetric(life.worker.Seconds()*1e6/jobs, "worker-µs/job")
	floor := w.floor(b)
	b.ReportMetric(floor.Seconds()*1e6, "floor-µs/job")
	b.ReportMetric((cpu+life.worker).Seconds()/jobs/floor.Seconds(), "x-floor")
	b.ReportMetric(life.took[len(life.took)/2].Seconds()*1e3, "p50-ms")
	b.ReportMetric(life.took[len(life.took)*99/100].Seconds()*1e3, "p99-ms")
	b.ReportMetric(0, "ns/op")
}

// life follows jobs to their ends.
type life struct {
	ended  chan struct{} // closed when nothing follows the node any more
	cancel context.CancelFunc

	mu     sync.Mutex
	waits  map[digest.SHA256]chan agent.Job
	early  map[digest.SHA256]agent.Job
	took   []time.Duration
	worker time.Duration
}

func follow(b *testing.B, n agent.Node) *life {
	ctx, cancel := context.WithCancel(b.Context())
	l := &life{ended: make(chan struct{}), cancel: cancel, waits: map[digest.SHA256]chan agent.Job{}, early: map[digest.SHA256]agent.Job{}}
	go func() {
		defer close(l.ended)
		for event, err := range n.Events(ctx, 0) {
			if err != nil {
				if ctx.Err() == nil {
					b.Error(err)
				}
				return
			}
			if event.Job != nil && event.Job.State.Ended() {
				l.tell(*event.Job)
			}
		}
	}()
	return l
}

func (l *life) tell(j agent.Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.waits[j.ID]; c != nil {
		c <- j
		delete(l.waits, j.ID)
		return
	}
	l.early[j.ID] = j
}

func (l *life) await(id digest.SHA256) agent.Job {
	l.mu.Lock()
	if j, ok := l.early[id]; ok {
		delete(l.early, id)
		l.mu.Unlock()
		return j
	}
	c := make(chan agent.Job, 1)
	l.waits[id] = c
	l.mu.Unlock()
	select {
	case j := <-c:
		return j
	case <-l.ended:
		return agent.Job{}
	}
}

func (l *life) stop() {
	l.cancel()
	<-l.ended
}

func (l *life) reset() { l.took, l.worker = nil, 0 }

// run takes jobs through the node.
func (l *life) run(b *testing.B, n agent.Node, envelopes [][]byte) {
	next := make(chan []byte)
	var done sync.WaitGroup
	for range flying {
		done.Go(func() {
			for envelope := range next {
				began := time.Now()
				j, err := n.Submit(b.Context(), envelope, "uid:0")
				if err != nil {
					b.Error(err)
					continue
				}
				if !j.State.Ended() {
					j = l.await(j.ID)
				}
				if j.State != agent.Archived || len(j.Attempts) != 1 {
					b.Errorf("got %+v", j)
					continue
				}
				l.mu.Lock()
				l.took, l.worker = append(l.took, time.Since(began)), l.worker+time.Duration(j.Attempts[0].CPUMicros)*time.Microsecond
				l.mu.Unlock()
			}
		})
	}
	for _, e := range envelopes {
		next <- e
	}
	close(next)
	done.Wait()
}

// nodeWorld is what a node and its clients need.
type nodeWorld struct {
	dir, content, image string
	keys                map[string]*identity.Key
}

func newNodeWorld(b *testing.B) *nodeWorld {
	b.Helper()
	w := &nodeWorld{dir: b.TempDir(), content: absolute(b, "../../runner/wasm/testdata"), keys: map[string]*identity.Key{}}
	code, err := os.ReadFile(filepath.Join(w.content, "tool.wasm"))
	if err != nil {
		b.Fatal(err)
	}
	sum := sha256.Sum256(code)
	w.image = "https://example.org/tool.wasm#sha256-" + base64.StdEncoding.EncodeToString(sum[:])
	root := &manifest.TrustRoot{
		APIVersion: manifest.APIVersion, Kind: "TrustRoot", Metadata: manifest.Metadata{Name: "example", Expires: "2100-01-01T00:00:00Z"},
		Spec: manifest.TrustRootSpec{Version: 1, Roles: map[string]manifest.TrustGroup{
			manifest.RoleGovernance: {Threshold: 1, Of: []string{"carol"}},
			manifest.RolePolicy:     {Threshold: 1, Of: []string{"carol"}},
			manifest.RoleJob:        {Threshold: 1, Of: []string{"alice"}},
		}},
	}
	for _, name := range []string{"alice", "carol", "node"} {
		seed := sha256.Sum256([]byte(name))
		if w.keys[name], err = identity.Generate(identity.Ed25519, bytes.NewReader(seed[:])); err != nil {
			b.Fatal(err)
		}
		if name != "node" {
			root.Spec.Principals = append(root.Spec.Principals, manifest.Principal{Name: name, Keys: []string{w.keys[name].Public().String()}})
		}
	}
	for file, doc := range map[string]manifest.Document{"trust": root, "policy": w.policy(manifest.PolicyQueue{})} {
		if err := os.WriteFile(filepath.Join(w.dir, file), w.sign(b, doc, "carol"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return w
}

// policy lets jobs run as BenchmarkNode wants them to.
func (w *nodeWorld) policy(queue manifest.PolicyQueue) *manifest.Policy {
	return &manifest.Policy{
		APIVersion: manifest.APIVersion, Kind: "Policy", Metadata: manifest.Metadata{Name: "house", Expires: "2099-01-01T00:00:00Z"},
		Spec: manifest.PolicySpec{
			Version: 1, Issuers: []manifest.PolicyIssuer{{Role: manifest.RoleJob}}, Runtimes: []manifest.Runtime{manifest.RuntimeWasm},
			Degradations: []string{"cpu", "memory", "processes", "devices", "io", job.OwnProcess},
			Resources:    manifest.PolicyResources{Job: manifest.JobResources{Memory: "64Mi"}}, Queue: queue,
		},
	}
}

func (w *nodeWorld) sign(b *testing.B, doc manifest.Document, name string) []byte {
	b.Helper()
	payload, err := manifest.Canonical(doc)
	if err != nil {
		b.Fatal(err)
	}
	env := &dsse.Envelope{PayloadType: manifest.PayloadType(doc.DocumentKind()), Payload: payload}
	if err := env.Add(b.Context(), w.keys[name]); err != nil {
		b.Fatal(err)
	}
	return env.Marshal()
}

// hello is a job that prints a word.
func (w *nodeWorld) hello(b *testing.B, number int) []byte {
	b.Helper()
	doc, err := manifest.ReadYAML(fmt.Appendf(nil, `apiVersion: arch.network/v1
kind: Job
metadata: {name: hello, owner: "user:alice", created: "2026-01-01T00:00:00Z", expires: "2098-01-01T00:00:00Z"}
spec:
  image: %s
  runtime: wasm
  args: [echo, hello]
  nonce: nonce-%016d
`, w.image, number))
	if err != nil {
		b.Fatal(err)
	}
	return w.sign(b, doc, "alice")
}

// open opens the node and runs it until stop is called.
func (w *nodeWorld) open(b *testing.B) (n *node.Node, stop func()) {
	b.Helper()
	worker := buildProgram(b, "../../runner/wasm/testdata/worker", "worker")
	confined, err := namespace.New(namespace.Options{})
	if err != nil {
		b.Fatal(err)
	}
	class, err := wasm.PoolClass(worker)
	if err != nil {
		b.Fatal(err)
	}
	pool, err := confined.NewPool(namespace.PoolOptions{Class: class, Size: 1})
	if err != nil {
		b.Fatal(err)
	}
	engine, err := wasm.New(wasm.Options{Driver: confined, Pool: pool, Worker: worker, Cache: filepath.Join(w.dir, "wasm")})
	if err != nil {
		b.Fatal(err)
	}
	keys, err := notekey.Generate("node.example/ledger", rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	n, err = node.Open(b.Context(), node.Options{
		State: filepath.Join(w.dir, "state"), Policy: filepath.Join(w.dir, "policy"), TrustRoot: filepath.Join(w.dir, "trust"),
		Slots: flying, Signer: w.keys["node"], LedgerKeys: keys, Content: []string{w.content}, Version: "bench",
		Driver: func(*store.Store) (executor.Driver, error) { return &executor.Direct{Runner: engine}, nil },
		Fetch:  func(f *source.Fetcher) { f.Offline = true },
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	return n, func() {
		cancel()
		if err := errors.Join(<-done, n.Close(), engine.Close(), pool.Close()); err != nil {
			b.Error(err)
		}
	}
}
