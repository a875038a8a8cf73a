package wasm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The worker's side of the conversation.

// lockedSender is an io.Writer of frames for several goroutines.
type lockedSender struct {
	w *worker
	f frame
}

func (s lockedSender) Write(b []byte) (int, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return pieces{s.w.out(), s.f}.Write(b)
}

func (w *worker) sender(f frame) io.Writer { return lockedSender{w, f} }

func (w *worker) send(f frame, content []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return writeFrame(w.out(), f, content)
}

// out is where frames go: into the socket, or before others that are still to come. mu is held.
func (w *worker) out() io.Writer {
	if w.corked == nil {
		return w.conn
	}
	return (*corked)(w)
}

// corked is a worker whose frames wait.
type corked worker

// mostCorked is how many bytes wait at most.
const mostCorked = 64 << 10

// Write implements io.Writer.
func (w *corked) Write(b []byte) (int, error) {
	if len(w.corked)+len(b) > mostCorked {
		if _, err := w.conn.Write(w.corked); err != nil {
			return 0, err
		}
		w.corked = w.corked[:0]
	}
	if len(b) > mostCorked {
		return w.conn.Write(b)
	}
	w.corked = append(w.corked, b...)
	return len(b), nil
}

// cork makes frames wait until uncork.
func (w *worker) cork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corked = make([]byte, 0, 4<<10)
}

// uncork lets out what waits, unless err.
func (w *worker) uncork(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.corked) > 0 && err == nil {
		_, err = w.conn.Write(w.corked)
	}
	w.corked = nil
	return err
}

func (w *worker) say(p phase) error { return w.send(framePhase, []byte{byte(p)}) }

// readTask reads one task and the descriptors that come with it.
func (w *worker) readTask() (task, error) {
	var buffer, text []byte
	for {
		f, n, err := readHeader(w.in())
		if err != nil {
			return task{}, fmt.Errorf("read task: %w", err)
		}
		if text == nil {
			w.runBegan = cpu()
		}
		switch f {
		case frameFiles:
			if err := w.receiveFiles(n); err != nil {
				return task{}, fmt.Errorf("read task: %w", err)
			}
			continue
		case frameTask:
		default:
			return task{}, fmt.Errorf("read task: %w", stray(f))
		}
		buffer = make([]byte, n)
		if _, err := io.ReadFull(w.in(), buffer); err != nil {
			return task{}, fmt.Errorf("read task: %w", err)
		}
		text = append(text, buffer...)
		if n < maxFrame { // the last piece
			break
		}
		if len(text) > maxTask {
			return task{}, fmt.Errorf("read task: it has more than %d bytes", maxTask)
		}
	}
	t, err := parseTask(text)
	if err != nil {
		return task{}, fmt.Errorf("read task: %w", err)
	}
	return t, nil
}

// maxTask bounds a task: bytes of JSON. With so many files and the longest of paths it is not enough: then it is refused.
const maxTask = 8 << 20

// filesPerFrame is how many descriptors go with one frame: the kernel takes 253 (SCM_MAX_FD).
const filesPerFrame = 250

// receiveFiles reads the content of a frame of descriptors, which have come with its first bytes at the latest.
func (w *worker) receiveFiles(n int) error {
	var count [1]byte
	if n != len(count) {
		return broken("a frame of descriptors of a wrong length")
	}
	if _, err := io.ReadFull(w.in(), count[:]); err != nil {
		return err
	}
	if w.announced += int(count[0]); w.announced != w.received.passed {
		return broken("%d descriptors were announced, %d have come", w.announced, w.received.passed)
	}
	return nil
}

// in is where the worker reads from.
func (w *worker) in() io.Reader {
	if w.received == nil {
		w.received = &receiver{w: w}
	}
	return w.received
}

// receiver reads the conversation ahead, with the descriptors that come with it.
type receiver struct {
	w      *worker
	buffer [readAhead]byte
	rest   []byte // of the buffer
	passed int    // descriptors so far
}

// Read implements io.Reader.
func (r *receiver) Read(b []byte) (int, error) {
	if len(r.rest) == 0 && len(b) >= len(r.buffer) {
		return r.receive(b)
	}
	if len(r.rest) == 0 {
		n, err := r.receive(r.buffer[:])
		if err != nil {
			return 0, err
		}
		r.rest = r.buffer[:n]
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// receive reads once from the socket.
func (r *receiver) receive(b []byte) (int, error) {
	var control [controlSize]byte
	for {
		n, m, flags, _, err := unix.Recvmsg(int(r.w.conn.Fd()), b, control[:], unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, os.NewSyscallError("recvmsg", err)
		case flags&unix.MSG_CTRUNC != 0:
			return 0, broken("descriptors were lost")
		}
		if m > 0 {
			if err := r.keep(control[:m]); err != nil {
				return 0, err
			}
		}
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
}

// controlSize is room for the descriptors of one message: struct cmsghdr is 16 bytes (cmsg(3)).
const controlSize = 16 + 4*filesPerFrame

// keep takes descriptors out of a control message.
func (r *receiver) keep(control []byte) error {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return err
	}
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil {
			return err
		}
		for _, fd := range fds {
			r.passed++
			r.w.files = append(r.w.files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	if len(r.w.files) > maxFiles+2 { // code and metered module
		return broken("more than %d descriptors came", maxFiles)
	}
	return nil
}

// file takes the next descriptor.
func (w *worker) file() (*os.File, error) {
	if len(w.files) == 0 {
		return nil, broken("a descriptor is missing")
	}
	f := w.files[0]
	w.files = w.files[1:]
	return f, nil
}

// read reads size bytes that come as frames.
func (w *worker) read(want frame, size int64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	all := make([]byte, 0, size)
	for int64(len(all)) < size {
		f, n, err := readHeader(w.in())
		if err != nil {
			return nil, err
		}
		if f != want || int64(n) > size-int64(len(all)) {
			return nil, stray(f)
		}
		piece := all[len(all):][:n]
		if _, err := io.ReadFull(w.in(), piece); err != nil {
			return nil, err
		}
		all = all[:len(all)+n]
	}
	return all, nil
}

// module returns the bytes to compile: those that come with the task, or metered ones from the cache.
func (w *worker) module(t task) ([]byte, error) {
	if t.Cached == nil {
		return w.read(frameModule, t.Size)
	}
	if t.Cached.Module != "" {
		return os.ReadFile(t.Cached.Module)
	}
	module, err := w.file()
	if err != nil {
		return nil, err
	}
	defer module.Close()
	code, err := w.file() // stays open for as long as the process lives
	if err != nil {
		return nil, err
	}
	t.Cached.Code = pathOf(code, t.Scratch)
	return io.ReadAll(module)
}

// codeCopy is the name of a copy of machine code.
const codeCopy = "code-copy"

// pathOf returns a path by which an open file can be opened, and "" if there is none: where there is no /proc, the file is copied.
func pathOf(f *os.File, scratch string) string {
	path := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path = filepath.Join(scratch, codeCopy)
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return ""
	}
	_, err = io.Copy(to, f)
	if errors.Join(err, to.Close()) != nil { // such as for want of room
		os.Remove(path)
		return ""
	}
	return path
}

// limitSpace lets the process have so many bytes of addresses more than it has: a guard that works where the driver's is slow.
func limitSpace(more int64) error {
	if more == 0 {
		return nil
	}
	statm, err := os.ReadFile("/proc/self/statm") // proc(5): the first number is the size, in pages
	if err != nil {
		return nil // the driver's limit remains
	}
	debug.SetMemoryLimit((more - spaceSlack) / 4 * 3) // near the limit, rather collect often than die
	size, _, _ := strings.Cut(string(statm), " ")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return nil
	}
	limit := uint64(n*int64(os.Getpagesize()) + more)
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return &unableError{os.NewSyscallError("setrlimit", err)}
	}
	return nil
}
