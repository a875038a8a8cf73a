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
	return pieces{s.w.conn, s.f}.Write(b)
}

func (w *worker) sender(f frame) io.Writer { return lockedSender{w, f} }

func (w *worker) send(f frame, content []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return writeFrame(w.conn, f, content)
}

func (w *worker) say(p phase) error { return w.send(framePhase, []byte{byte(p)}) }

// readTask reads one task and the descriptors that come with it.
func (w *worker) readTask() (task, error) {
	var buffer, text []byte
	for {
		f, n, err := readHeader(w.conn)
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
		if _, err := io.ReadFull(w.conn, buffer); err != nil {
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

// receiveFiles reads the content of a frame of descriptors.
func (w *worker) receiveFiles(n int) error {
	if n != 1 || len(w.files) > maxFiles {
		return broken("a frame of descriptors of a wrong length, or too many")
	}
	content, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4*filesPerFrame))
	_, m, flags, _, err := unix.Recvmsg(int(w.conn.Fd()), content, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("recvmsg", err)
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return broken("descriptors were lost")
	}
	messages, err := unix.ParseSocketControlMessage(control[:m])
	if err != nil {
		return err
	}
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil {
			return err
		}
		for _, fd := range fds {
			w.files = append(w.files, os.NewFile(uintptr(fd), "passed"))
		}
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
		f, n, err := readHeader(w.conn)
		if err != nil {
			return nil, err
		}
		if f != want || int64(n) > size-int64(len(all)) {
			return nil, stray(f)
		}
		piece := all[len(all):][:n]
		if _, err := io.ReadFull(w.conn, piece); err != nil {
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
