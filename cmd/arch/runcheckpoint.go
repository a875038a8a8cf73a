package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/runner"
	"arch.network/runner/broker"
	"arch.network/runner/checkpoint"
	"arch.network/runner/wasm"
)

// checkpointed is a job that can be stopped, and go on later from a directory:
//
//	current          JSON: the job's document id, and the name of the directory with the newest checkpoint
//	at-GAS/          checkpoint, and what the job had printed: stdout, stderr; of a job that the broker ran, the broker has the checkpoint
//	work-*/          of a run that is going on
//
// A checkpoint is never changed: a run works on a copy, so that one that dies leaves it as it was.
type checkpointed struct {
	dir  string // empty: the module is prepared for snapshots, but nobody asked for one
	id   digest.SHA256
	work string
	from *checkpoint.Checkpoint // nil: from the beginning

	byBroker bool
	broker   *broker.Snapshot // where it goes on if it is the broker that runs it; nil: from the beginning

	stopped *uint64 // the gas at which it was, set by keep
}

const (
	currentFile    = "current"
	checkpointFile = "checkpoint"
	maxCurrent     = 1 << 10
)

// current is the content of currentFile.
type current struct {
	Job digest.SHA256 `json:"job"`
	At  string        `json:"at"`

	Broker *broker.Snapshot `json:"broker,omitempty"` // what the broker has; nil: the checkpoint is here
}

// checkpoints says whether a run of the job takes part in checkpoints.
func (o *runOptions) checkpoints(t *jobTarget) bool {
	if t.byBroker {
		return t.doc.Spec.Checkpointable
	}
	return t.doc.Spec.Runtime == manifest.RuntimeWasm && (o.checkpoint != "" || t.doc.Spec.Checkpointable)
}

// openCheckpoint reads the newest checkpoint of dir, if there is one, and makes a directory to work in.
func openCheckpoint(dir string, t *jobTarget) (*checkpointed, error) {
	c := &checkpointed{id: t.id, byBroker: t.byBroker}
	if dir == "" {
		return c, nil
	}
	var err error
	if c.dir, err = filepath.Abs(dir); err == nil {
		err = os.MkdirAll(c.dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("make checkpoint directory: %w", err)
	}
	at, err := c.read()
	if err != nil {
		return nil, err
	}
	if c.work, err = os.MkdirTemp(c.dir, "work-"); err != nil {
		return nil, fmt.Errorf("make checkpoint directory: %w", err)
	}
	if err := c.prepare(at); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// read returns the directory of the newest checkpoint; "" if there is none.
func (c *checkpointed) read() (string, error) {
	data, err := readAtMost(filepath.Join(c.dir, currentFile), maxCurrent)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read checkpoint: %w", err)
	}
	var now current
	if err := json.Unmarshal(data, &now); err != nil || !strings.HasPrefix(now.At, "at-") || strings.Contains(now.At, "/") {
		return "", fmt.Errorf("read checkpoint: %s is damaged", filepath.Join(c.dir, currentFile))
	}
	if now.Job != c.id {
		return "", hinted(fmt.Errorf("the checkpoint in %s is of job %s, not %s", c.dir, now.Job, c.id), "name another directory, or remove this one")
	}
	at := filepath.Join(c.dir, now.At)
	if c.byBroker != (now.Broker != nil) {
		return "", hinted(fmt.Errorf("the checkpoint in %s is of a run %s", c.dir, map[bool]string{true: "without the broker", false: "by the broker, which keeps it"}[c.byBroker]),
			"name the same --driver as then, or another directory")
	}
	if c.broker = now.Broker; c.broker != nil {
		return at, nil
	}
	if data, err = readAtMost(filepath.Join(at, checkpointFile), checkpoint.MaxSize); err != nil {
		return "", fmt.Errorf("read checkpoint: %w", err)
	}
	if c.from, err = checkpoint.Parse(data); err != nil {
		return "", fmt.Errorf("read checkpoint %s: %w", at, err)
	}
	return at, nil
}

// prepare fills the working directory: with what the job had printed, if it goes on from a snapshot.
func (c *checkpointed) prepare(at string) error {
	for _, name := range []string{"stdout", "stderr"} {
		data := []byte{}
		if c.from != nil && c.from.Snapshot != nil || c.broker != nil && !c.broker.Repeats {
			var err error
			if data, err = readAtMost(filepath.Join(at, name), maxPrinted); err != nil {
				return fmt.Errorf("read checkpoint: %w", err)
			}
		}
		if err := os.WriteFile(filepath.Join(c.work, name), data, 0o600); err != nil {
			return fmt.Errorf("make checkpoint directory: %w", err)
		}
	}
	return nil
}

// maxPrinted bounds what a job has printed before it was stopped: bytes.
const maxPrinted = 1 << 30

// tee passes on what the job prints, and keeps it. What it printed before it was stopped comes first.
func (c *checkpointed) tee(name string, to io.Writer) (io.Writer, func() error, error) {
	if c.dir == "" {
		return to, func() error { return nil }, nil
	}
	f, err := os.OpenFile(filepath.Join(c.work, name), os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	if _, err := io.Copy(to, f); err != nil {
		f.Close()
		return nil, nil, err
	}
	return io.MultiWriter(to, f), f.Close, nil
}

// runner returns a runner that can stop the job when ctx ends. The run itself goes on until it has stopped. The module is known
// by the document that pins it.
func (c *checkpointed) runner(ctx context.Context, m *wasm.Runner, stopAt uint64) (context.Context, runner.Runner) {
	r := &checkpoint.Runner{Wasm: m, Options: checkpoint.Options{Module: c.id, From: c.from}, Stopped: c.keep}
	if c.dir == "" {
		return ctx, r
	}
	r.Options.StopAt, r.Options.Stop = stopAt, ctx.Done()
	return context.WithoutCancel(ctx), r
}

// keep makes a checkpoint the newest one.
func (c *checkpointed) keep(made *checkpoint.Checkpoint) error {
	if c.dir == "" {
		return nil
	}
	if err := builder.WriteFile(filepath.Join(c.work, checkpointFile), made.Marshal()); err != nil {
		return fmt.Errorf("keep checkpoint: %w", err)
	}
	return c.install(current{Job: c.id}, made.Gas)
}

// keepWithBroker makes a checkpoint that the broker has the newest one.
func (c *checkpointed) keepWithBroker(made *broker.Snapshot) error {
	if c.dir == "" {
		return nil
	}
	return c.install(current{Job: c.id, Broker: made}, uint64(made.Gas))
}

// install gives the working directory its name, and names it as the newest.
func (c *checkpointed) install(now current, gas uint64) error {
	now.At = fmt.Sprintf("at-%d", gas)
	at := filepath.Join(c.dir, now.At)
	text, err := json.Marshal(now)
	if err == nil {
		err = os.RemoveAll(at)
	}
	if err == nil {
		err = os.Rename(c.work, at)
	}
	if err == nil {
		err = builder.WriteFile(filepath.Join(c.dir, currentFile), text)
	}
	if err != nil {
		return fmt.Errorf("keep checkpoint: %w", err)
	}
	c.work, c.stopped = "", &gas
	return c.sweep(now.At)
}

// sweep removes every checkpoint but the one that is named keep.
func (c *checkpointed) sweep(keep string) error {
	old, err := filepath.Glob(filepath.Join(c.dir, "at-*"))
	if err != nil {
		return err
	}
	for _, at := range old {
		if filepath.Base(at) != keep {
			err = errors.Join(err, os.RemoveAll(at))
		}
	}
	return err
}

// close removes the working directory.
func (c *checkpointed) close() error {
	if c.work == "" {
		return nil
	}
	return os.RemoveAll(c.work)
}

// done removes all checkpoints of a job that came to its end.
func (c *checkpointed) done() error {
	if c.dir == "" {
		return nil
	}
	err := os.Remove(filepath.Join(c.dir, currentFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, c.close(), c.sweep(""))
	if entries, readErr := os.ReadDir(c.dir); readErr == nil && len(entries) == 0 {
		err = errors.Join(err, os.Remove(c.dir))
	}
	return err
}

// stoppedError says that a job was stopped in a way from which it can go on.
type stoppedError struct {
	gas uint64
	dir string
}

func (e *stoppedError) Error() string {
	return fmt.Sprintf("stopped after %d gas; the checkpoint is in %s", e.gas, e.dir)
}

// Hint tells the way on.
func (e *stoppedError) Hint() string {
	return "the same command goes on from there, without --stop-at to the end"
}

// readAtMost reads a regular file of at most limit bytes.
func readAtMost(path string, limit int64) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("read %s: it is over the limit of %d bytes", path, limit)
	}
	return data, err
}
