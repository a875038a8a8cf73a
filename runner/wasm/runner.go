package wasm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"arch.network/runner"
	"arch.network/runner/program"
)

// Options say what a Runner works with.
type Options struct {
	// Driver confines the workers. Needed.
	Driver runner.Runner
	// Pool hands out workers that were started beforehand, by PoolCommand; nil: there are none. What cannot run in one of
	// them runs by Driver: see Runner.Run.
	Pool runner.Pool
	// Worker is a static program whose main calls Main. Empty: the running one, with its libraries if it has any.
	Worker string
	// Cache is a directory for machine code, which nobody but the caller may write to. It is made if it is not there.
	// Empty: modules are compiled for each run.
	Cache string
	// CacheSize is how many bytes Cache may hold; what was used least recently goes first. Zero: 4 GiB.
	CacheSize int64
	// Timing, if not nil, is called after each run with what the worker says it has computed: CPU time for preparing the module
	// (checking, metering, compiling or loading), and from then to the module's end. Several goroutines may call it.
	Timing func(prepare, run time.Duration)
}

// Runner runs modules, and hands everything else to its driver. It may be used by several goroutines at once.
type Runner struct {
	options Options
	worker  program.Program
	cache   *cache // nil: none

	mu      sync.Mutex // guards the rest
	warm    map[warmKey][]*readyWorker
	kept    []*keptWorker   // idle, the one that was used last at the end
	working map[keptKey]int // at work, or being made
	making  map[keptKey]int // of those, being made
	waiting []*waiter       // for one of those, who came first at the beginning
	shut    bool
}

// New returns a Runner. It starts nothing.
func New(o Options) (*Runner, error) {
	if o.Driver == nil {
		return nil, errors.New("make wasm runner: it has no driver")
	}
	worker := program.Program{Path: o.Worker}
	if o.Worker == "" {
		var err error
		if worker, err = program.Self(); err != nil {
			return nil, err
		}
	}
	r := &Runner{options: o, worker: worker, warm: map[warmKey][]*readyWorker{}, working: map[keptKey]int{}, making: map[keptKey]int{}}
	if o.Cache != "" {
		var err error
		if r.cache, err = openCache(o.Cache, o.CacheSize); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Extra asks for an Extension in a run.
type Extra struct {
	Name    string             // of the Extension
	Send    [][]byte           // what it gets, in one piece: Instance.Extra
	Receive func([]byte) error // gets what Instance.Write sends, which is a stranger's word; nil: that is refused. Its error ends the run and is returned
	Stop    <-chan struct{}    // closing it makes Instance.Asked true; nil: never
}

// Run implements runner.Runner. A Spec without a Module goes to the driver as it is.
//
// A module runs in a worker of the Pool if there is one and everything it sees can be handed over by descriptors: directories that
// are not writable and come from Bind or Data mounts, with at most 4,096 files, and writable ones that are on a Tmpfs, which the
// worker then holds in memory. Devices, Network, Hostname, UID and the like mean nothing to a module there.
func (r *Runner) Run(ctx context.Context, spec runner.Spec) (runner.Result, error) {
	if spec.Module == nil {
		return r.options.Driver.Run(ctx, spec)
	}
	return r.run(ctx, spec, Extra{})
}

// RunExtra is Run for a module, with an Extension taking part. It does not use the Pool.
func (r *Runner) RunExtra(ctx context.Context, spec runner.Spec, extra Extra) (runner.Result, error) {
	if spec.Module == nil {
		return runner.Result{}, &runner.SetupError{Act: "check spec", Err: errors.New("there is no module to extend")}
	}
	return r.run(ctx, spec, extra)
}

func (r *Runner) run(ctx context.Context, spec runner.Spec, extra Extra) (runner.Result, error) {
	if err := check(spec); err != nil {
		return runner.Result{}, &runner.SetupError{Act: "check spec", Err: err}
	}
	if spec.Module.Reuse != "" && r.options.Pool != nil && extra.Name == "" {
		if plan, ok := plan(spec); ok {
			return r.runReused(ctx, spec, plan)
		}
	}
	module, err := readModule(spec)
	if err != nil {
		return runner.Result{}, err
	}
	if r.options.Pool != nil && extra.Name == "" {
		if plan, ok := plan(spec); ok {
			return r.runPooled(ctx, spec, module, plan)
		}
	}
	if err := checkWorker(r.options.Worker); err != nil {
		return runner.Result{}, err
	}
	entry, refused, err := r.entry(ctx, spec, module, extra.Name)
	if err != nil || refused != nil {
		if refused == nil {
			refused = &runner.Result{}
		}
		return *refused, err
	}
	return r.runDriven(ctx, spec, module, entry, extra)
}

// checkWorker refuses a named program that needs others to start, since there are none in a confinement; "" is the running one,
// which brings its own.
func checkWorker(path string) error {
	if path == "" {
		return nil
	}
	refuse := func(err error, cure string) error {
		return &runner.SetupError{Act: fmt.Sprintf("use %q as worker", path), Err: err, Cure: cure}
	}
	static, err := program.Static(path)
	if err != nil {
		return refuse(err, "name the arch program, or let it run where it can read itself")
	}
	if !static {
		return refuse(errors.New("it is dynamically linked"), "build it with CGO_ENABLED=0")
	}
	return nil
}

// Where a worker finds what is its own, in the confined file system. The module cannot see it unless a Dir of the Spec
// names it.
const (
	insideWorker  = "/.arch-wasm/worker"
	insideScratch = "/.arch-wasm/scratch"
	insideModule  = "/.arch-wasm/module"
	insideCode    = "/.arch-wasm/code"
)

// workerCommand starts a worker. GOTRACEBACK keeps a dying worker from saying much more than why.
func workerCommand(path string) runner.Command {
	return runner.Command{Argv: []string{path, argument1}, Env: []string{"GOTRACEBACK=none"}}
}

// PoolCommand is the command of a runner.Pool's processes, where worker is the program's path in their file system. The
// confinement must let it make memory executable, and have a Tmpfs at /tmp; where it has no /proc, machine code from a cache is
// copied there, which takes about three times the module's size. Descriptor 0 is the socket that Worker.Conn is the other end of.
func PoolCommand(worker string) runner.Command { return workerCommand(worker) }

// insidePool is where the worker lies in a pool's confinement.
const insidePool = "/bin/worker"

// PoolClass is what the processes of a pool are for Options with that Worker: the program, what it is linked with, and a Tmpfs. Limits are
// left to the jobs. The error is a *runner.SetupError.
func PoolClass(worker string) (runner.Spec, error) {
	if err := checkWorker(worker); err != nil {
		return runner.Spec{}, err
	}
	p := program.Program{Path: worker}
	if worker == "" {
		var err error
		if p, err = program.Self(); err != nil {
			return runner.Spec{}, err
		}
	}
	start := PoolCommand(insidePool)
	start.Env = append(start.Env, p.Env...)
	mounts := append([]runner.Mount(nil), p.Mounts...)
	return runner.Spec{
		Commands: []runner.Command{start},
		Mounts: append(mounts, runner.Mount{Kind: runner.Bind, Source: p.Path, Target: insidePool},
			runner.Mount{Kind: runner.Tmpfs, Target: pooledScratch, Size: scratchSize}),
	}, nil
}

// spaceSlack is what a worker may use of addresses beyond Limits.Memory: the compiler's working memory lies in
// Limits.Memory as well, but Go reserves more than it uses.
const spaceSlack = 1 << 30

// newTask makes the parts of a task that are the same wherever it runs.
func newTask(spec runner.Spec, a act, module []byte) task {
	m := spec.Module
	t := task{
		Version: protocolVersion, Act: a, Size: int64(len(module)), Memory: m.Memory, Interpret: m.Interpret, Scratch: insideScratch,
		Args: m.Args, Env: m.Env, Entry: m.Entry, Clock: m.Clock, Gas: m.Gas,
	}
	if spec.Limits.Memory > 0 {
		t.Space = spec.Limits.Memory + spaceSlack
	}
	if m.Seed != nil {
		t.Seed = m.Seed[:]
	}
	return t
}

// runDriven runs a module in a confinement that the driver makes for it.
func (r *Runner) runDriven(ctx context.Context, spec runner.Spec, module []byte, e *storedEntry, extra Extra) (runner.Result, error) {
	t := newTask(spec, actRun, module)
	t.Extension = extra.Name
	for _, part := range extra.Send {
		t.Extra += int64(len(part))
	}
	for _, d := range spec.Module.Dirs {
		t.Dirs = append(t.Dirs, taskDir{As: d.As, Path: d.Path, Writable: d.Writable})
	}
	inner := r.workerSpec(spec)
	if e != nil {
		t.Size, module = 0, nil
		t.Cached = &cached{Module: insideModule, Code: insideCode, Name: e.name}
		inner.Mounts = append(inner.Mounts,
			runner.Mount{Kind: runner.Bind, Source: e.module, Target: insideModule},
			runner.Mount{Kind: runner.Bind, Source: e.code, Target: insideCode})
	}
	s := &session{task: t, module: module, extra: extra}
	inner.Exchange = s.exchange
	result, err := s.result(r.options.Driver.Run(ctx, inner))
	r.timing(s)
	return result, err
}

func (r *Runner) timing(s *session) {
	if r.options.Timing != nil && s.report != nil {
		r.options.Timing(s.report.PrepareCPU, s.report.RunCPU)
	}
}

// workerSpec is spec with the worker in place of the module.
func (r *Runner) workerSpec(spec runner.Spec) runner.Spec {
	inner := spec
	inner.Module = nil
	start := workerCommand(insideWorker)
	start.Env = append(start.Env, r.worker.Env...)
	inner.Commands = []runner.Command{start}
	if n := inner.Limits.Processes; n > 0 {
		inner.Limits.Processes = max(n, workerThreads)
	}
	inner.Mounts = append([]runner.Mount(nil), spec.Mounts...)
	inner.Mounts = append(inner.Mounts, r.worker.Mounts...)
	inner.Mounts = append(inner.Mounts,
		runner.Mount{Kind: runner.Bind, Source: r.worker.Path, Target: insideWorker},
		runner.Mount{Kind: runner.Tmpfs, Target: insideScratch, Size: scratchSize})
	return inner
}

// workerThreads is how many threads a worker may need. A module has none of its own, and starts no process.
const workerThreads = 64

// scratchSize is room for a module's code, which is some three times the module's size, and the metered module: bytes.
const scratchSize = 512 << 20

// Close ends the workers that Warm keeps, and those that are kept for owners, and waits for them. Runs that are going on are their callers'.
func (r *Runner) Close() error {
	r.mu.Lock()
	r.shut = true
	all, kept := r.warm, r.kept
	r.warm, r.kept = nil, nil
	r.mu.Unlock()
	for _, workers := range all {
		for _, w := range workers {
			w.end()
		}
	}
	for _, w := range kept {
		w.end()
	}
	return nil
}

var (
	_ runner.Runner = (*Runner)(nil)
	_ io.Closer     = (*Runner)(nil)
)

// errWall is what ends a pooled run by Limits.Wall.
var errWall = errors.New("wall-clock limit")

// withWall returns ctx that ends when the limit does.
func withWall(ctx context.Context, wall time.Duration) (context.Context, context.CancelFunc) {
	if wall == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, wall, errWall)
}
