package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"arch.network/runner/wasm/wasi"
)

// argument1 makes the program a worker. It is not a secret: without a task on descriptor 0 the process just ends.
const argument1 = "arch-wasm-worker"

// Main runs a worker if args, which are os.Args, say so. Each binary that is used as one calls it before anything else in
// main, with the extensions that its worker offers:
//
//	if handled, code := wasm.Main(os.Args); handled {
//		os.Exit(code)
//	}
func Main(args []string, extensions ...Extension) (handled bool, code int) {
	if len(args) != 2 || args[1] != argument1 {
		return false, 0
	}
	w := &worker{conn: os.NewFile(0, "exchange"), stdout: os.Stdout, stderr: os.Stderr, extensions: extensions}
	if err := w.divert(); err != nil {
		fmt.Fprintf(os.Stderr, "arch: wasm worker: %v\n", err)
		return true, 2
	}
	ok, err := w.work(context.Background())
	switch {
	case err != nil:
		fmt.Fprintf(w.stderr, "arch: wasm worker: %v\n", err)
		return true, 2
	case !ok:
		return true, 1
	default:
		return true, 0
	}
}

// worker is the life of a worker process.
type worker struct {
	conn       *os.File
	stdout     io.Writer // of the module, unless it goes out as frames
	stderr     io.Writer
	extensions []Extension
	mu         sync.Mutex // guards writing frames
	files      []*os.File // descriptors that came and were not taken yet
	memory     *slab      // of a worker that serves; nil: each instance has its own
	received   *receiver  // nil: nothing has been read
	announced  int        // descriptors, by frames so far
	corked     []byte     // frames that wait for the next ones, and go out with the report; nil: none do

	prepareCPU time.Duration
	runBegan   time.Duration // CPU time when the task that runs came
}

// divert makes the last words of a dying Go runtime, which go to descriptor 2, part of the conversation: the caller tells
// them from a frame by their first letters. They are no business of the module's reader.
func (w *worker) divert() error {
	stderr, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if errors.Is(err, unix.EBADF) { // there is none
		w.stderr = io.Discard
	} else if err != nil {
		return os.NewSyscallError("fcntl", err)
	} else {
		w.stderr = os.NewFile(uintptr(stderr), "stderr")
	}
	return os.NewSyscallError("dup3", unix.Dup3(0, 2, 0))
}

// work does what it is told and reports. It returns whether the module ended with status 0.
func (w *worker) work(ctx context.Context) (ok bool, err error) {
	t, err := w.readTask()
	if err != nil {
		return false, w.report(report{End: endUnable, Detail: cut(err.Error())})
	}
	if t.Serial {
		return w.serve(ctx, t)
	}
	rep := w.do(ctx, t)
	rep.PrepareCPU = w.prepareCPU
	rep.Engine = engineName(t.Interpret)
	return rep.End == endExit && rep.Exit == 0, w.report(rep)
}

func (w *worker) do(ctx context.Context, t task) report {
	ext, err := w.extension(t.Extension)
	if err != nil {
		return describe(err)
	}
	e, err := w.prepare(ctx, t, ext)
	if err != nil {
		return describe(err)
	}
	if t.Act == actCompile {
		return report{End: endExit}
	}
	if t.Act == actPrepare {
		t, err = w.await(ctx, e, t)
	} else {
		w.runBegan = cpu()
		err = w.say(phaseRun)
	}
	if err != nil {
		return describe(err)
	}
	return w.run(ctx, e, t, ext)
}

// prepare makes the task's module ready to run.
func (w *worker) prepare(ctx context.Context, t task, ext *Extension) (*engine, error) {
	began := cpu()
	defer func() { w.prepareCPU = cpu() - began }()
	if err := limitSpace(t.Space); err != nil {
		return nil, err
	}
	module, err := w.module(t)
	if err != nil {
		return nil, err
	}
	return prepare(ctx, t, module, ext, w.say)
}

// describe makes the report of an error from before the module ran.
func describe(err error) report {
	if r, ok := errors.AsType[*refusal](err); ok {
		return report{End: endRefused, Detail: cut(r.what)}
	}
	return report{End: endUnable, Detail: cut(err.Error())}
}

// await waits for the task that runs the prepared module.
func (w *worker) await(ctx context.Context, e *engine, prepared task) (task, error) {
	w.rehearse(ctx, e)
	return w.next(prepared)
}

// next waits for a task of the prepared module.
func (w *worker) next(prepared task) (task, error) {
	if err := w.say(phaseReady); err != nil {
		return task{}, err
	}
	t, err := w.readTask() // from here on the Runner takes it that the module runs
	if err != nil {
		return task{}, err
	}
	if t.Act != actRun || t.Size != 0 || t.Cached != nil || t.Memory != prepared.Memory || t.Interpret != prepared.Interpret || t.Extension != prepared.Extension {
		return task{}, errors.New("the task is for another module than the prepared one")
	}
	return t, nil
}

// run runs the module and sends what it made.
func (w *worker) run(ctx context.Context, e *engine, t task, ext *Extension) report {
	extra, err := w.read(frameExtra, t.Extra)
	if err != nil {
		return describe(err)
	}
	trees, err := w.trees(t)
	if err != nil {
		return describe(err)
	}
	stdout, stderr := w.stdout, w.stderr
	if t.Frames {
		stdout, stderr = w.sender(frameStdout), w.sender(frameStderr)
	}
	r, err := newRun(e, t, trees, stdout, stderr)
	if err != nil {
		return describe(err)
	}
	asked := new(atomic.Bool)
	if ext != nil {
		go w.listen(asked)
	}
	rep := r.execute(ctx, ext, extra, w.sender(frameExtra), asked)
	if rep.End == endExit && rep.Exit == 0 {
		if err := w.outputs(ctx, t, trees); err != nil {
			rep.End, rep.Detail = endMissing, cut(err.Error())
		}
	}
	rep.RunCPU = cpu() - w.runBegan
	return rep
}

// listen waits for the order to stop. Whatever else comes, or the end of the conversation, ends the waiting.
func (w *worker) listen(asked *atomic.Bool) {
	var buffer []byte
	if f, _, err := readFrame(w.in(), &buffer); err == nil && f == frameStop {
		asked.Store(true)
	}
}

func (w *worker) extension(name string) (*Extension, error) {
	if name == "" {
		return nil, nil
	}
	for i := range w.extensions {
		if w.extensions[i].Name == name {
			return &w.extensions[i], nil
		}
	}
	return nil, fmt.Errorf("this worker has no extension %q", name)
}

// trees opens the directories of a task.
func (w *worker) trees(t task) ([]wasi.Tree, error) {
	var trees []wasi.Tree
	for _, d := range t.Dirs {
		if d.Path != "" {
			tree, err := wasi.OpenHost(d.Path)
			if err != nil {
				return nil, fmt.Errorf("open directory %q of the module: %w", d.As, err)
			}
			trees = append(trees, tree)
			continue
		}
		tree := wasi.NewMemory(t.Room)
		for _, f := range d.Files {
			if err := w.put(tree, f); err != nil {
				return nil, err
			}
		}
		trees = append(trees, tree)
	}
	return trees, nil
}

func (w *worker) put(tree *wasi.Memory, f taskFile) error {
	switch {
	case f.Tree:
		return tree.PutDir(f.Path)
	case f.Link != "":
		return tree.PutLink(f.Path, f.Link)
	}
	content, err := w.file()
	if err != nil {
		return err
	}
	return tree.Put(f.Path, content, f.Size)
}

// outputs sends what the module left in memory.
func (w *worker) outputs(ctx context.Context, t task, trees []wasi.Tree) error {
	if len(t.Outputs) == 0 {
		return nil
	}
	w.cork()
	for _, o := range t.Outputs {
		if err := trees[o.Dir].(*wasi.Memory).WriteNAR(ctx, w.sender(frameOutput), o.Path); err != nil {
			return err
		}
		if err := w.send(frameOutputEnd, nil); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) report(rep report) error {
	rep.Version = protocolVersion
	data, err := json.Marshal(rep)
	if err != nil {
		return err
	}
	return w.uncork(w.send(frameReport, data))
}

// cpu is the time that the process has computed so far.
func cpu() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
