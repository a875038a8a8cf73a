// Command worker is a small program that can be a worker of package wasm: tests use it in place of arch. It offers an
// extension, "slices", which runs a module in slices of gas, and stops it between two of them when it is asked to, or after as many
// as it got bytes.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"arch.network/runner/gas"
	"arch.network/runner/namespace"
	"arch.network/runner/wasm"
)

// slice is how much gas a module gets at a time.
const slice = 100_000

func main() {
	if os.Getenv("ARCH_TEST_MDWE") != "" { // as systemd's MemoryDenyWriteExecute does
		if err := unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); err != nil {
			fmt.Fprintln(os.Stderr, "PR_SET_MDWE:", err)
			os.Exit(3)
		}
	}
	if handled, code := namespace.Main(os.Args); handled {
		os.Exit(code)
	}
	s := &slices{}
	handled, code := wasm.Main(os.Args, wasm.Extension{Name: "slices", Prepare: prepare, Hook: s.hook, Run: s.run})
	if !handled {
		code = 2
	}
	os.Exit(code)
}

func prepare(module []byte) ([]byte, error) {
	m, err := gas.Instrument(module, gas.Options{Hook: true})
	if err != nil {
		return nil, err
	}
	return m.Module, nil
}

type slices struct {
	n int // slices so far
}

// run starts the first slice, and says at the end how many there were.
func (s *slices) run(in *wasm.Instance) error {
	in.SetGlobal(gas.Global, slice)
	in.SetGasUsed(0, slice)
	err := in.Enter()
	state, serr := in.WASI().State()
	if serr != nil {
		return serr
	}
	fmt.Fprintf(in, "%d slices, %d bytes of memory, %d descriptors, %d bytes written", s.n, in.Memory().Size(), len(state.Descriptors), state.Stdout)
	if errors.Is(err, wasm.ErrStopped) {
		return wasm.ErrStopped
	}
	return err
}

// hook ends a slice.
func (s *slices) hook(in *wasm.Instance) {
	s.n++
	left, _ := in.Global(gas.Global)
	used := uint64(slice - int64(left))
	in.SetGlobal(gas.Global, slice)
	in.SetGasUsed(uint64(s.n)*used, slice)
	if in.Asked() || len(in.Extra()) == 8 && uint64(s.n) == binary.LittleEndian.Uint64(in.Extra()) {
		panic(wasm.ErrStopped)
	}
	if s.n == 1 {
		in.Write([]byte("first "))
	}
}
