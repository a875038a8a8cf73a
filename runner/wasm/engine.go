package wasm

import (
	"bytes"
	"context"
	encoding "encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"arch.network/runner/gas"
	"arch.network/runner/wasm/binary"
	"arch.network/runner/wasm/wasi"
)

// wazeroVersion is the release that go.mod requires. It is part of what results and cached code are named by.
const wazeroVersion = "1.12.0"

// engineName is what Result.Engine says.
func engineName(interpret bool) string {
	if interpret {
		return "wazero/" + wazeroVersion + " interpreter"
	}
	return "wazero/" + wazeroVersion + " compiler"
}

// refusal says what is wrong with a module, before any of it ran.
type refusal struct {
	what string
}

func (e *refusal) Error() string { return e.what }

// unableError says that the engine cannot work on this host, whatever the module.
type unableError struct {
	err error
}

func (e *unableError) Error() string { return e.err.Error() }
func (e *unableError) Unwrap() error { return e.err }

// StartExport is the name under which the function of a module's start section is exported instead: the engine would call it
// before the gas limit could be set.
const StartExport = "arch.start"

// meter checks a module and makes it count its work.
func meter(module []byte, ext *Extension) ([]byte, error) {
	if ext != nil && ext.Prepare != nil {
		if err := binary.Check(module, binary.Limits{}); err != nil {
			return nil, &refusal{err.Error()}
		}
		metered, err := ext.Prepare(module)
		if err != nil {
			return nil, &refusal{err.Error()}
		}
		return deferStart(metered)
	}
	if err := refuseReserved(module); err != nil {
		return nil, err
	}
	metered, err := gas.Instrument(module, gas.Options{CanonicalNaN: true}) // decodes, and so checks
	if err != nil {
		return nil, &refusal{err.Error()}
	}
	return deferStart(metered.Module)
}

// refuseReserved keeps StartExport ours: what a module exports by that name would be called.
func refuseReserved(module []byte) error {
	if !bytes.Contains(module, []byte(StartExport)) {
		return nil
	}
	m, err := binary.Decode(module, binary.Limits{})
	if err != nil {
		return &refusal{err.Error()}
	}
	for _, e := range m.Exports {
		if e.Name == StartExport {
			return &refusal{fmt.Sprintf("it exports %q, a reserved name", StartExport)}
		}
	}
	return nil
}

// deferStart turns the start section, if there is one, into an export.
func deferStart(module []byte) ([]byte, error) {
	if !hasStart(module) {
		return module, nil
	}
	m, err := binary.Decode(module, binary.Limits{Module: 4 * maxModule})
	if err != nil {
		return nil, &refusal{err.Error()}
	}
	m.Exports = append(m.Exports, binary.Export{Name: StartExport, Kind: binary.KindFunc, Index: *m.Start})
	m.Start = nil
	return m.Encode(), nil
}

// hasStart reports whether a well-formed module has a start section (specification, 5.5.11: number 8).
func hasStart(module []byte) bool {
	for b := module[8:]; len(b) > 1; {
		if b[0] == 8 {
			return true
		}
		size, n := encoding.Uvarint(b[1:]) // LEB128 without sign
		if n <= 0 || uint64(len(b)-1-n) < size {
			return false
		}
		b = b[1+n+int(size):]
	}
	return false
}

// engine is wazero with one module in it.
type engine struct {
	runtime   wazero.Runtime
	cache     wazero.CompilationCache // nil: none
	compiled  wazero.CompiledModule
	instance  api.Module
	interpret bool
	hook      func() // what the module's hook calls; set by run
}

// newEngine makes a runtime with the host functions. The code of modules is looked for, and put, in cacheDir; empty: nowhere.
func newEngine(ctx context.Context, t task, ext *Extension, cacheDir string) (e *engine, err error) {
	defer func() { // the compiler panics where it may not map executable memory
		if p := recover(); p != nil {
			err = &unableError{fmt.Errorf("start %s: %v", engineName(t.Interpret), p)}
		}
	}()
	e = &engine{interpret: t.Interpret}
	config := wazero.NewRuntimeConfigCompiler()
	if t.Interpret {
		config = wazero.NewRuntimeConfigInterpreter()
	}
	config = config.WithCoreFeatures(api.CoreFeaturesV2).WithDebugInfoEnabled(false).WithMemoryLimitPages(pages(t.Memory))
	if cacheDir != "" {
		if e.cache, err = wazero.NewCompilationCacheWithDir(cacheDir); err != nil {
			return nil, err
		}
		config = config.WithCompilationCache(e.cache)
	}
	e.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	if err := wasi.Instantiate(ctx, e.runtime); err != nil {
		return nil, &unableError{err}
	}
	if ext != nil && ext.Hook != nil {
		hook := api.GoFunc(func(context.Context, []uint64) { e.hook() })
		_, err := e.runtime.NewHostModuleBuilder(gas.HookModule).
			NewFunctionBuilder().WithGoFunction(hook, nil, nil).Export(gas.HookFunction).Instantiate(ctx)
		if err != nil {
			return nil, &unableError{err}
		}
	}
	return e, nil
}

// pages is the memory limit in WebAssembly's pages of 64 KiB. Less than a page is none.
func pages(memory int64) uint32 {
	const most = 1 << 16
	if memory == 0 {
		return most
	}
	return uint32(min(memory>>16, most))
}

// compile makes machine code, or what the interpreter runs.
func (e *engine) compile(ctx context.Context, metered []byte) (m wazero.CompiledModule, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &refusal{fmt.Sprintf("the engine could not compile it: %v", p)}
		}
	}()
	if m, err = e.runtime.CompileModule(ctx, metered); err != nil {
		return nil, &refusal{firstLine(err)}
	}
	return m, nil
}

// instantiate makes the instance. None of the module's instructions run, for it has no start section any more.
func (e *engine) instantiate(ctx context.Context, m wazero.CompiledModule) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &refusal{fmt.Sprintf("the engine could not instantiate it: %v", p)}
		}
	}()
	e.compiled = m
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions().WithRandSource(noRandomness{})
	e.instance, err = e.runtime.InstantiateModule(ctx, m, config)
	if err != nil {
		return &refusal{firstLine(err)}
	}
	return nil
}

// noRandomness is in place of the engine's own source, which nobody reads, for package wasi has another, and which takes longer to make than the
// rest of a small instance.
type noRandomness struct{}

// Read implements io.Reader.
func (noRandomness) Read([]byte) (int, error) { return 0, errors.New("randomness is package wasi's") }

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return cut(line)
}

// prepare makes an engine that is ready to run t's module. say is called at each phase.
func prepare(ctx context.Context, t task, module []byte, ext *Extension, say func(phase) error) (*engine, error) {
	if err := say(phaseCheck); err != nil {
		return nil, err
	}
	metered := module
	if t.Cached == nil {
		var err error
		if metered, err = meter(module, ext); err != nil {
			return nil, err
		}
	}
	if err := say(phaseCompile); err != nil {
		return nil, err
	}
	cacheDir := filepath.Join(t.Scratch, "cache")
	switch {
	case t.Act == actCompile:
		e, _, err := build(ctx, t, metered, ext, cacheDir)
		if err != nil {
			return nil, err
		}
		return e, keep(t.Scratch, cacheDir, metered)
	case t.Cached != nil && t.Cached.Code != "" && linkCode(cacheDir, *t.Cached) == nil:
		e, compiled, err := build(ctx, t, metered, ext, cacheDir)
		os.Remove(filepath.Join(t.Scratch, codeCopy)) // it is mapped by now
		if err == nil {
			return e, e.instantiate(ctx, compiled)
		}
	}
	e, compiled, err := build(ctx, t, metered, ext, "") // also where the cached code was of no use
	if err != nil {
		return nil, err
	}
	return e, e.instantiate(ctx, compiled)
}

// build makes an engine and the code of a module.
func build(ctx context.Context, t task, metered []byte, ext *Extension, cacheDir string) (*engine, wazero.CompiledModule, error) {
	e, err := newEngine(ctx, t, ext, cacheDir)
	if err != nil {
		return nil, nil, err
	}
	compiled, err := e.compile(ctx, metered)
	return e, compiled, err
}

// linkCode makes wazero find cached code under the name it looks for. What it does not find, it compiles.
func linkCode(cacheDir string, c cached) error {
	link := filepath.Join(cacheDir, c.Name)
	return errors.Join(os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink(c.Code, link))
}

// keep leaves in out what a cache entry is made of: the file that wazero has put into its directory, the metered module, and
// the name of the former.
func keep(out, cacheDir string, metered []byte) error {
	found, err := filepath.Glob(filepath.Join(cacheDir, "*", "*"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("keep machine code: wazero has left %d files (%v)", len(found), err)
	}
	name, err := filepath.Rel(cacheDir, found[0])
	if err != nil {
		return err
	}
	return errors.Join(
		os.Rename(found[0], filepath.Join(out, entryCode)),
		os.WriteFile(filepath.Join(out, entryModule), metered, 0o644),
		os.WriteFile(filepath.Join(out, entryName), []byte(name), 0o644),
		os.RemoveAll(cacheDir),
	)
}
