package wasi

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// Module is the name that modules import the functions from.
const Module = "wasi_snapshot_preview1"

// Config says what a module sees. The zero value is nothing at all.
type Config struct {
	Args []string // complete: Args[0] is the program's name
	Env  []string // "KEY=value", complete

	Stdout, Stderr io.Writer // nil: discarded. An error of either is EIO to the module

	// Dirs are opened before the module starts, as descriptors from 3 on. They must have different names. The System closes
	// their Trees.
	Dirs []Dir

	Clock *time.Time // as runner.Module.Clock; nil: the host's clocks
	Seed  *[32]byte  // as runner.Module.Seed; nil: the host's randomness

	// Charge, if not nil, is called with the number of bytes that a call copies, such as to count them as work.
	Charge func(bytes uint64)
}

// Dir is one directory of a Config.
type Dir struct {
	Name     string // such as "/inputs"
	Tree     Tree
	Writable bool
}

// System is what one instance of a module sees. It is not safe for use by several goroutines at once.
type System struct {
	config  Config
	table   []*descriptor // by number; nil: free
	clock   clock
	random  random
	written [3]uint64 // bytes to stdout and stderr, by descriptor
}

// New returns a System with the directories of c open.
func New(c Config) (*System, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	s := &System{config: c, clock: newClock(c.Clock), random: newRandom(c.Seed)}
	s.table = []*descriptor{
		{kind: kindStdin, rights: stdinRights},
		{kind: kindStdout, rights: stdoutRights, out: c.Stdout},
		{kind: kindStderr, rights: stdoutRights, out: c.Stderr},
	}
	for i, dir := range c.Dirs {
		s.table = append(s.table, preopened(i, dir))
		if m, ok := dir.Tree.(*Memory); ok {
			m.now = s.clock.fileTime
		}
	}
	return s, nil
}

// The most that args and env may hold together, with a terminator each: what Linux allows by default.
const maxStrings = 2 << 20

func (c Config) validate() error {
	total := 0
	for _, s := range slices.Concat(c.Args, c.Env) {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("make WASI system: %q has a NUL byte", s)
		}
		total += len(s) + 1
	}
	if total > maxStrings {
		return fmt.Errorf("make WASI system: arguments and environment have %d bytes, more than %d", total, maxStrings)
	}
	seen := map[string]bool{}
	for _, dir := range c.Dirs {
		if dir.Name == "" || len(dir.Name) > maxPath || strings.ContainsRune(dir.Name, 0) || seen[dir.Name] {
			return fmt.Errorf("make WASI system: directory name %q is empty, too long, or there twice", dir.Name)
		}
		if dir.Tree == nil {
			return fmt.Errorf("make WASI system: directory %q has no tree", dir.Name)
		}
		seen[dir.Name] = true
	}
	return nil
}

// Close closes everything that is open, and the Trees.
func (s *System) Close() error {
	var first error
	for _, d := range s.table {
		if d != nil && d.file != nil {
			if e := d.file.close(); e != success {
				first = cmp.Or[error](first, fmt.Errorf("close %q: WASI error %d", d.path, e))
			}
		}
	}
	s.table = nil
	for _, dir := range s.config.Dirs {
		if err := dir.Tree.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Written returns how many bytes went to stdout and stderr.
func (s *System) Written() (stdout, stderr uint64) { return s.written[1], s.written[2] }

type contextKey struct{}

// Context returns a context with which calls into a module reach this System: all functions that Instantiate exports act
// on the System of the context they are called with.
func (s *System) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, contextKey{}, s)
}

// Instantiate makes the host module in a runtime. It belongs to no System: see System.Context.
func Instantiate(ctx context.Context, r wazero.Runtime) error {
	builder := r.NewHostModuleBuilder(Module)
	for name, f := range functions() {
		results := []api.ValueType{api.ValueTypeI32}
		if f.noResult {
			results = nil
		}
		builder.NewFunctionBuilder().WithGoModuleFunction(f.bind(), f.types(), results).Export(name)
	}
	if _, err := builder.Instantiate(ctx); err != nil {
		return fmt.Errorf("instantiate %s: %w", Module, err)
	}
	return nil
}

// function is one host function: its parameters, "i" for each i32 and "I" for each i64, and what it does.
type function struct {
	params   string
	do       func(s *System, m memory, p []uint64) errno
	noResult bool
}

func (f function) types() []api.ValueType {
	types := make([]api.ValueType, len(f.params))
	for i, p := range f.params {
		types[i] = api.ValueTypeI32
		if p == 'I' {
			types[i] = api.ValueTypeI64
		}
	}
	return types
}

func (f function) bind() api.GoModuleFunc {
	masks := make([]uint64, len(f.params))
	for i, p := range f.params {
		masks[i] = math.MaxUint64
		if p == 'i' {
			masks[i] = math.MaxUint32 // wazero does not promise what the upper half holds
		}
	}
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		s, ok := ctx.Value(contextKey{}).(*System)
		m := memory{Memory: MemoryOf(mod), mod: mod, ctx: ctx}
		for i, mask := range masks {
			stack[i] &= mask
		}
		e := errNoSystem
		switch {
		case !ok: // called outside of a run
		case m.Memory == nil:
			e = errFault
		default:
			e = f.do(s, m, stack)
		}
		if !f.noResult {
			stack[0] = uint64(e)
		}
	}
}

// functions lists all of preview 1.
func functions() map[string]function {
	return map[string]function{
		"args_get":                {params: "ii", do: (*System).argsGet},
		"args_sizes_get":          {params: "ii", do: (*System).argsSizesGet},
		"environ_get":             {params: "ii", do: (*System).environGet},
		"environ_sizes_get":       {params: "ii", do: (*System).environSizesGet},
		"clock_res_get":           {params: "ii", do: (*System).clockResGet},
		"clock_time_get":          {params: "iIi", do: (*System).clockTimeGet},
		"fd_advise":               {params: "iIIi", do: (*System).fdAdvise},
		"fd_allocate":             {params: "iII", do: (*System).fdAllocate},
		"fd_close":                {params: "i", do: (*System).fdClose},
		"fd_datasync":             {params: "i", do: (*System).fdDatasync},
		"fd_fdstat_get":           {params: "ii", do: (*System).fdFdstatGet},
		"fd_fdstat_set_flags":     {params: "ii", do: (*System).fdFdstatSetFlags},
		"fd_fdstat_set_rights":    {params: "iII", do: (*System).fdFdstatSetRights},
		"fd_filestat_get":         {params: "ii", do: (*System).fdFilestatGet},
		"fd_filestat_set_size":    {params: "iI", do: (*System).fdFilestatSetSize},
		"fd_filestat_set_times":   {params: "iIIi", do: (*System).fdFilestatSetTimes},
		"fd_pread":                {params: "iiiIi", do: (*System).fdPread},
		"fd_prestat_get":          {params: "ii", do: (*System).fdPrestatGet},
		"fd_prestat_dir_name":     {params: "iii", do: (*System).fdPrestatDirName},
		"fd_pwrite":               {params: "iiiIi", do: (*System).fdPwrite},
		"fd_read":                 {params: "iiii", do: (*System).fdRead},
		"fd_readdir":              {params: "iiiIi", do: (*System).fdReaddir},
		"fd_renumber":             {params: "ii", do: (*System).fdRenumber},
		"fd_seek":                 {params: "iIii", do: (*System).fdSeek},
		"fd_sync":                 {params: "i", do: (*System).fdSync},
		"fd_tell":                 {params: "ii", do: (*System).fdTell},
		"fd_write":                {params: "iiii", do: (*System).fdWrite},
		"path_create_directory":   {params: "iii", do: (*System).pathCreateDirectory},
		"path_filestat_get":       {params: "iiiii", do: (*System).pathFilestatGet},
		"path_filestat_set_times": {params: "iiiiIIi", do: (*System).pathFilestatSetTimes},
		"path_link":               {params: "iiiiiii", do: (*System).pathLink},
		"path_open":               {params: "iiiiiIIii", do: (*System).pathOpen},
		"path_readlink":           {params: "iiiiii", do: (*System).pathReadlink},
		"path_remove_directory":   {params: "iii", do: (*System).pathRemoveDirectory},
		"path_rename":             {params: "iiiiii", do: (*System).pathRename},
		"path_symlink":            {params: "iiiii", do: (*System).pathSymlink},
		"path_unlink_file":        {params: "iii", do: (*System).pathUnlinkFile},
		"poll_oneoff":             {params: "iiii", do: (*System).pollOneoff},
		"proc_exit":               {params: "i", do: (*System).procExit, noResult: true},
		"proc_raise":              {params: "i", do: (*System).procRaise},
		"random_get":              {params: "ii", do: (*System).randomGet},
		"sched_yield":             {params: "", do: (*System).schedYield},
		"sock_accept":             {params: "iii", do: (*System).sockRefuse},
		"sock_recv":               {params: "iiiiii", do: (*System).sockRefuse},
		"sock_send":               {params: "iiiii", do: (*System).sockRefuse},
		"sock_shutdown":           {params: "ii", do: (*System).sockRefuse},
	}
}
