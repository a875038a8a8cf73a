package wasm

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/tetratelabs/wazero/api"
	"golang.org/x/sys/unix"

	"arch.network/runner/wasm/wasi"
)

// rehearsalModule is a module whose _start writes nothing to stdout and ends with proc_exit(0): the binary form of
//
//	(module
//	  (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
//	  (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
//	  (memory (export "memory") 1) (global (export "arch.gas") (mut i64) (i64.const 0))
//	  (func (export "_start") (drop (call 0 (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (call 1 (i32.const 0))))
const rehearsalModule = "\x00asm\x01\x00\x00\x00" +
	"\x01\x10\x03\x60\x04\x7f\x7f\x7f\x7f\x01\x7f\x60\x01\x7f\x00\x60\x00\x00" +
	"\x02\x46\x02\x16wasi_snapshot_preview1\x08fd_write\x00\x00\x16wasi_snapshot_preview1\x09proc_exit\x00\x01" +
	"\x03\x02\x01\x02" +
	"\x05\x03\x01\x00\x01" +
	"\x06\x06\x01\x7e\x01\x42\x00\x0b" +
	"\x07\x1e\x03\x06memory\x02\x00\x08arch.gas\x03\x00\x06_start\x00\x02" +
	"\x0a\x13\x01\x11\x00\x41\x01\x41\x00\x41\x01\x41\x08\x10\x00\x1a\x41\x00\x10\x01\x0b"

// rehearse does once, with nothing at stake, what a run does: so that the program's own pages are in memory, and what Go builds
// at first use is built, before the clock of a job runs. It changes nothing that a job could see; its own errors do not matter.
func (w *worker) rehearse(ctx context.Context, e *engine) {
	calm() // first, for what Go keeps at hand to allocate from is gone after a collection
	touch(wasi.MemoryOf(e.instance))
	for range 2 { // the second finds what the first has left
		w.rehearseOnce(ctx, e)
	}
}

func (w *worker) rehearseOnce(ctx context.Context, e *engine) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	defer near.Close()
	defer far.Close()
	now := time.Unix(0, 0)
	text, err := json.Marshal(task{
		Version: protocolVersion, Act: actRun, Args: []string{"a"}, Env: []string{"A=b"}, Clock: &now, Seed: make([]byte, 32), Frames: true,
		Dirs: []taskDir{{As: "/a", Files: []taskFile{{Path: "a", Tree: true}}}},
	})
	if err != nil || writeFrame(near, frameTask, text) != nil {
		return
	}
	double := &worker{conn: far}
	t, err := double.readTask()
	if err != nil {
		return
	}
	small := &engine{runtime: e.runtime, interpret: e.interpret}
	compiled, err := small.compile(ctx, []byte(rehearsalModule))
	if err != nil || small.instantiate(ctx, compiled) != nil {
		return
	}
	rep := double.run(ctx, small, t, nil)
	rep.Engine = engineName(e.interpret)
	double.report(rep)
}

// touched is how much of a module's memory is made present beforehand: bytes.
const touched = 4 << 20

// touch makes the kernel give the process the pages of a memory's beginning, where modules have their stack and data.
func touch(m api.Memory) {
	if m == nil {
		return
	}
	for i := uint32(0); i < min(m.Size(), touched); i += 4096 {
		b, _ := m.ReadByte(i)
		m.WriteByte(i, b)
	}
}

// calm collects what preparing has left, and keeps the collector away until the job itself needs it.
func calm() {
	runtime.GC()
	debug.SetGCPercent(400)
}
