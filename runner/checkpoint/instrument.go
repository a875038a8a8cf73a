package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"arch.network/attest/digest"
	"arch.network/runner/gas"
	"arch.network/runner/wasm/binary"
)

// Record says how a prepared module came to be: what a build receipt needs to have it made again.
type Record struct {
	Gas         string        `json:"gas"`         // gas.Version
	Tool        digest.SHA256 `json:"tool"`        // of the wasm-opt program file
	ToolVersion string        `json:"toolVersion"` // what it says of itself
	Arguments   []string      `json:"arguments"`   // without the names of files
	Input       digest.SHA256 `json:"input"`       // of the module before
	Output      digest.SHA256 `json:"output"`      // of the module after
}

// maxPrepared is how large a prepared module may be: asyncify makes code larger.
const maxPrepared = 256 << 20

// arguments are those of wasm-opt: the features that package binary knows, and the transformation. Without -O1, asyncify leaves code
// that is three times as large and half as fast.
func arguments() []string {
	return []string{
		"--enable-bulk-memory", "--enable-sign-ext", "--enable-nontrapping-float-to-int", "--enable-mutable-globals",
		"--enable-multivalue", "--enable-simd", "--enable-reference-types",
		"-O1", "--asyncify", "--pass-arg=asyncify-imports@" + gas.HookModule + "." + gas.HookFunction,
	}
}

// UnfitError says why a module cannot be prepared for snapshots. It can still be resumed by a mark.
type UnfitError struct {
	Why string
}

func (e *UnfitError) Error() string { return "prepare module for checkpoints: " + e.Why }

// Hint tells the way out.
func (e *UnfitError) Hint() string {
	return "run the module unprepared: it is then resumed by repeating its execution up to where it was stopped"
}

// Instrument prepares a module for snapshots: it counts gas (package gas, with a hook and canonical NaNs) and can save its call stack. wasmOpt is
// the path of binaryen's wasm-opt, version 108 or later. The same module and the same program give the same bytes.
//
// The error is an *UnfitError for a module whose state cannot be saved: one that changes tables or drops segments, has a start
// section, imports a memory, table or global, or has mutable globals that are vectors or references.
func Instrument(ctx context.Context, module []byte, wasmOpt string) ([]byte, Record, error) {
	m, err := binary.Decode(module, binary.Limits{})
	if err != nil {
		return nil, Record{}, err
	}
	if err := fit(m); err != nil {
		return nil, Record{}, err
	}
	counted, err := gas.Instrument(module, gas.Options{Hook: true, CanonicalNaN: true})
	if err != nil {
		return nil, Record{}, err
	}
	record := Record{Gas: gas.Version, Arguments: arguments(), Input: digest.Of(module)}
	if record.Tool, record.ToolVersion, err = identify(ctx, wasmOpt); err != nil {
		return nil, Record{}, err
	}
	out, err := asyncify(ctx, counted.Module, wasmOpt)
	if err != nil {
		return nil, Record{}, err
	}
	if prepared, err := IsPrepared(out); err != nil {
		return nil, Record{}, fmt.Errorf("check what wasm-opt made: %w", err)
	} else if !prepared {
		return nil, Record{}, errors.New("check what wasm-opt made: it cannot save its call stack")
	}
	record.Output = digest.Of(out)
	return out, record, nil
}

// fit looks for state that a snapshot would not have.
func fit(m *binary.Module) error {
	if m.Start != nil {
		return &UnfitError{"it has a start section, which would run again on resuming"}
	}
	if len(m.Memories) == 0 {
		return &UnfitError{"it has no memory of its own, to save its call stack in"}
	}
	for _, i := range m.Imports {
		if i.Kind != binary.KindFunc {
			return &UnfitError{fmt.Sprintf("it imports %q of %q, which is no function", i.Name, i.Module)}
		}
	}
	for i, g := range m.Globals {
		if g.Mutable && (g.Type == binary.V128 || g.Type == binary.FuncRef || g.Type == binary.ExternRef) {
			return &UnfitError{fmt.Sprintf("its mutable global %d is a vector or reference", i)}
		}
	}
	var in binary.Instr
	for i := range m.Codes {
		for s := binary.ReadInstrs(m.Codes[i].Body); s.Next(&in); {
			switch in.Op {
			case binary.TableSet, binary.TableGrow, binary.TableFill, binary.TableCopy, binary.TableInit, binary.ElemDrop, binary.DataDrop:
				return &UnfitError{fmt.Sprintf("its function %d changes a table or drops a segment (instruction %#x), which cannot be saved",
					i+m.ImportedFuncs(), uint16(in.Op))}
			}
		}
	}
	return nil
}

func identify(ctx context.Context, wasmOpt string) (digest.SHA256, string, error) {
	program, err := os.ReadFile(wasmOpt)
	if err != nil {
		return digest.SHA256{}, "", &toolError{err}
	}
	version, err := exec.CommandContext(ctx, wasmOpt, "--version").Output()
	if err != nil {
		return digest.SHA256{}, "", &toolError{fmt.Errorf("ask %s for its version: %w", wasmOpt, err)}
	}
	return digest.Of(program), strings.TrimSpace(string(version)), nil
}

// toolError says that wasm-opt cannot be used.
type toolError struct{ err error }

func (e *toolError) Error() string { return "prepare module for checkpoints: " + e.err.Error() }
func (e *toolError) Unwrap() error { return e.err }

// Hint tells the way out.
func (e *toolError) Hint() string { return "install wasm-opt, of the package binaryen" }

func asyncify(ctx context.Context, module []byte, wasmOpt string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "arch-checkpoint-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	in, out := filepath.Join(dir, "in.wasm"), filepath.Join(dir, "out.wasm")
	if err := os.WriteFile(in, module, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, wasmOpt, append(arguments(), in, "-o", out)...)
	cmd.Env = []string{"LC_ALL=C"}
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stderr, &stderr
	if err := cmd.Run(); err != nil {
		return nil, &toolError{fmt.Errorf("run wasm-opt: %w: %q", err, stderr.Bytes()[:min(stderr.Len(), 500)])}
	}
	if info, err := os.Stat(out); err != nil {
		return nil, err
	} else if info.Size() > maxPrepared {
		return nil, fmt.Errorf("prepare module for checkpoints: it has %d bytes, more than %d", info.Size(), maxPrepared)
	}
	return os.ReadFile(out)
}

// Functions that asyncify adds.
const (
	startUnwind = "asyncify_start_unwind"
	stopUnwind  = "asyncify_stop_unwind"
	startRewind = "asyncify_start_rewind"
	stopRewind  = "asyncify_stop_rewind"
)

// IsPrepared reports whether module is one that Instrument makes: it counts gas, asks its host for more, and has the functions to
// save its call stack. The error is binary.Decode's, or says what is wrong with one that pretends to be.
func IsPrepared(module []byte) (bool, error) {
	m, err := binary.Decode(module, preparedLimits())
	if err != nil {
		return false, err
	}
	hooked := slices.ContainsFunc(m.Imports, func(i binary.Import) bool { return i.Module == gas.HookModule })
	if !hooked {
		if _, ok := exportedFunction(m, startUnwind); ok {
			return false, fmt.Errorf("module has a function %q as a prepared one, but does not import the hook of one", startUnwind)
		}
		return false, nil
	}
	for _, want := range []struct {
		name   string
		params []binary.ValType
	}{{startUnwind, []binary.ValType{binary.I32}}, {stopUnwind, nil}, {startRewind, []binary.ValType{binary.I32}}, {stopRewind, nil}} {
		if t, ok := exportedFunction(m, want.name); !ok || len(t.Results) > 0 || !slices.Equal(t.Params, want.params) {
			return false, fmt.Errorf("module imports the hook of a prepared one, but has no function %q as asyncify makes it", want.name)
		}
	}
	if t, ok := exportedGlobal(m, gas.Global); !ok || t != (binary.GlobalType{Type: binary.I64, Mutable: true}) {
		return false, fmt.Errorf("module imports the hook of a prepared one, but exports no counter %q", gas.Global)
	}
	return true, fit(m)
}

func preparedLimits() binary.Limits {
	return binary.Limits{Module: maxPrepared, Body: 16 << 20, AllLocals: 20_000_000, Control: 80_000}
}

func exportedFunction(m *binary.Module, name string) (binary.FuncType, bool) {
	first := m.ImportedFuncs()
	for _, e := range m.Exports {
		if e.Kind == binary.KindFunc && e.Name == name && int(e.Index) >= first {
			return m.Types[m.Funcs[int(e.Index)-first]], true
		}
	}
	return binary.FuncType{}, false
}

func exportedGlobal(m *binary.Module, name string) (binary.GlobalType, bool) {
	first := m.ImportedGlobals()
	for _, e := range m.Exports {
		if e.Kind == binary.KindGlobal && e.Name == name && int(e.Index) >= first {
			return m.Globals[int(e.Index)-first].GlobalType, true
		}
	}
	return binary.GlobalType{}, false
}
