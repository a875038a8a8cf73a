package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"arch.network/attest/canonical"
	"arch.network/attest/digest"
	"arch.network/runner"
)

// task is a job on disk, so that it can outlive its connection and the broker's process:
//
//	jobs/NAME/order    who asked for what
//	jobs/NAME/frames   of a detached job: every frame from started to the last one
//	jobs/NAME/done     empty: the last frame is there
//
// NAME is that of the runner.Spec, which the broker made up.
type task struct {
	name  string
	dir   string
	order order

	mu      sync.Mutex // guards the rest
	file    *os.File   // frames, for appending; nil if the job is not detached, or done
	size    int64      // bytes of frames that are whole
	done    bool
	left    bool          // nobody may write any more: who tries waits for the end of the process
	changed chan struct{} // closed when size or done changes
	cancel  context.CancelCauseFunc
	stopper *stopper // nil: it cannot be stopped where it stands
	buf     []byte
	usage   wireUsage // so far

	kept runner.Kept // what an earlier broker had of the execution, when this one opened the task

	id   digest.SHA256 // of the document
	bell *bell         // rings when what describe returns has changed
}

// order is what a task must remember.
type order struct {
	User    uint32  `json:"user"`
	Started int64   `json:"started"` // microseconds since 1970
	Request request `json:"request"`
}

const (
	orderFile  = "order"
	framesFile = "frames"
	doneFile   = "done"
	maxOrder   = 2 * maxMessage
)

// taskName is what names look like; it is checked before one is used in a path. It is compiled when first needed, since every start
// of a program that can talk to the broker would pay for it.
var taskName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^job-[0-9a-f]{24}-[0-9a-f]{12}$`) })

// newTask writes a task to disk.
func newTask(jobs, name string, o order) (_ *task, err error) {
	if !taskName().MatchString(name) {
		return nil, fmt.Errorf("job name %q is none of the broker's", name)
	}
	t := &task{name: name, dir: filepath.Join(jobs, name), order: o, changed: make(chan struct{}), id: documentOf(o.Request)}
	data, err := canonical.Marshal(o)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(t.dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(t.dir)
		}
	}()
	if err := os.WriteFile(filepath.Join(t.dir, orderFile), data, 0o600); err != nil {
		return nil, err
	}
	if o.Request.Detach {
		t.file, err = os.OpenFile(filepath.Join(t.dir, framesFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	}
	return t, err
}

// leave ends all writing: what comes now is for the next broker, or for nobody.
func (t *task) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left = true
}

// openTask reads one that an earlier process left. An output is cut off if its end is missing: it will be collected again.
func openTask(jobs, name string) (*task, error) {
	t := &task{name: name, dir: filepath.Join(jobs, name), changed: make(chan struct{})}
	data, err := os.ReadFile(filepath.Join(t.dir, orderFile))
	if err != nil {
		return nil, err
	}
	if len(data) > maxOrder {
		return nil, errors.New("the order is too large")
	}
	if err := decode(data, &t.order); err != nil {
		return nil, err
	}
	t.id = documentOf(t.order.Request)
	if !t.order.Request.Detach {
		return t, nil
	}
	if _, err := os.Lstat(filepath.Join(t.dir, doneFile)); err == nil {
		t.done = true
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	frames := filepath.Join(t.dir, framesFile)
	if t.done {
		info, err := os.Stat(frames)
		if err == nil {
			t.size = info.Size()
		}
		return t, err
	}
	f, err := os.OpenFile(frames, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	if t.size, t.kept, err = wholeFrames(f); err == nil {
		err = f.Truncate(t.size)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t.file = f
	return t, nil
}

// wholeFrames returns how many bytes of a file are good to go on after, and what they hold of the execution: whole frames, and none of an
// output that is not whole.
func wholeFrames(f *os.File) (good int64, kept runner.Kept, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, kept, err
	}
	var current output // whose data comes
	var sum digest.Writer
	r := frameReader{r: io.NewSectionReader(f, 0, info.Size())}
	for at := int64(0); ; {
		k, body, err := r.next(kindStarted, kindStdout, kindStderr, kindOutput, kindData, kindEnd, kindResult, kindRefusal)
		if errors.Is(err, io.EOF) || errors.Is(err, errCut) {
			return good, kept, nil
		} else if err != nil {
			return 0, kept, err
		}
		at += headSize + int64(len(body))
		switch k {
		case kindStdout:
			kept.Stdout += int64(len(body))
		case kindStderr:
			kept.Stderr += int64(len(body))
		case kindOutput:
			if err := decode(body, &current); err != nil {
				return 0, kept, err
			}
			sum = digest.Writer{}
		case kindData:
			sum.Write(body)
		case kindEnd:
			kept.Outputs = append(kept.Outputs, runner.Collected{Name: current.Name, NAR: sum.Sum(), Size: sum.Size()})
		}
		if k != kindOutput && k != kindData {
			good = at
		}
	}
}

// send implements sink.
func (t *task) send(k kind, message any) error {
	frame, err := encode(k, message)
	if err != nil {
		return err
	}
	return t.append(frame)
}

// frame implements sink.
func (t *task) frame(k kind, body []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = appendFrame(t.buf[:0], k, body)
	return t.write(t.buf)
}

func (t *task) append(frame []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.write(frame)
}

// write adds a frame; the caller holds mu.
func (t *task) write(frame []byte) error {
	if t.left {
		t.mu.Unlock()
		select {} // until the process ends: what is taken from the execution now, no later broker would get
	}
	if t.file == nil {
		return errors.New("keep what the job says: it is over")
	}
	if n, err := t.file.Write(frame); err != nil {
		if n > 0 {
			err = errors.Join(err, t.file.Truncate(t.size))
		}
		return fmt.Errorf("keep what the job says: %w", err)
	}
	t.size += int64(len(frame))
	t.tell()
	return nil
}

// tell wakes those who follow; the caller holds mu.
func (t *task) tell() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// finish adds the last frame, durably.
func (t *task) finish(frame []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return nil
	}
	err := t.write(frame)
	err = errors.Join(err, t.file.Sync(), t.file.Close())
	if err == nil {
		err = os.WriteFile(filepath.Join(t.dir, doneFile), nil, 0o600)
	}
	t.file, t.done = nil, true
	t.tell()
	t.bell.ring()
	return err
}

// observe notes what the job has used so far.
func (t *task) observe(u runner.Usage) {
	t.mu.Lock()
	t.usage = usageToWire(u)
	t.mu.Unlock()
	t.bell.ring()
}

// restart forgets what the job has said, since it will say it again.
func (t *task) restart() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return errors.New("keep what the job says: it is over")
	}
	t.size = 0
	return t.file.Truncate(0)
}

// state returns what there is now, and what closes when there is more.
func (t *task) state() (size int64, done bool, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size, t.done, t.changed
}

// abort ends the job, if it runs.
func (t *task) abort(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cancel != nil {
		t.cancel(cause)
	}
}

// control says how the job is ended, and how it is stopped where it stands; nil: it cannot be.
func (t *task) control(cancel context.CancelCauseFunc, s *stopper) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancel, t.stopper = cancel, s
}

// halt stops the job where it stands.
func (t *task) halt() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.done:
		return nil
	case t.stopper == nil:
		return protocolErrorf("the client wants a job stopped that is not checkpointable")
	}
	t.stopper.stop()
	return nil
}

// remove forgets the task.
func (t *task) remove() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
	return os.RemoveAll(t.dir)
}

// age is how long ago the job started.
func (t *task) age(now time.Time) time.Duration { return now.Sub(time.UnixMicro(t.order.Started)) }
