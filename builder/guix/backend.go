package guix

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"

	"arch.network/attest"
	"arch.network/attest/digest"
	"arch.network/attest/digest/nar"
	"arch.network/attest/digest/storepath"
	"arch.network/attest/manifest"
	"arch.network/builder"
	"arch.network/builder/derivation"
	"arch.network/builder/nix/drv"
	"arch.network/runner"
	"arch.network/runner/closure/daemon"
)

// Options says how Guix is used. The zero value is as configured for machine and user.
type Options struct {
	Socket   string // of the daemon: a path, or file://PATH; empty: where guix-daemon listens by default
	Offline  bool   // ask no substitute server
	Channels string // file with channels, whose Guix evaluates (guix time-machine); empty: the installed one
}

// Backend is a derivation.Backend: the machine's store, in which its guix-daemon builds.
type Backend struct {
	options Options
	socket  string
	missing []string // of the confinement
}

// DaemonError says that nobody answers at the daemon's socket.
type DaemonError struct {
	Socket string
	Err    error
}

func (e *DaemonError) Error() string { return fmt.Sprintf("guix-daemon at %s: %v", e.Socket, e.Err) }

// Unwrap returns the cause.
func (e *DaemonError) Unwrap() error { return e.Err }

// Hint tells the way out.
func (e *DaemonError) Hint() string {
	if errors.Is(e.Err, os.ErrPermission) {
		return "the socket's owner decides who may have guix-daemon build"
	}
	return noDaemon
}

// Open finds the daemon and tries whether its sandbox holds.
func Open(ctx context.Context, o Options) (*Backend, error) {
	b := &Backend{options: o, socket: cmp.Or(o.Socket, daemon.GuixSocket)}
	if u, err := url.Parse(b.socket); err == nil && u.Scheme != "" {
		if u.Scheme != "file" && u.Scheme != "unix" {
			return nil, &DaemonError{b.socket, errors.New("only a socket on this machine is used: its store is read from here, too")}
		}
		b.socket = u.Path
	}
	c, err := b.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	b.missing, err = tryConfinement(ctx, c)
	return b, err
}

// connect opens a connection on which the daemon builds what it cannot substitute.
func (b *Backend) connect(ctx context.Context) (*daemon.Client, error) {
	return b.dial(ctx, daemon.Options{Fallback: true, Substitute: !b.options.Offline})
}

func (b *Backend) dial(ctx context.Context, o daemon.Options) (*daemon.Client, error) {
	c, err := daemon.Dial(ctx, b.socket)
	if err != nil {
		if _, missing := exec.LookPath("guix"); missing != nil && errors.Is(err, fs.ErrNotExist) {
			return nil, &MissingProgramError{missing} // there is no Guix at all
		}
		return nil, &DaemonError{b.socket, err}
	}
	if c.Kind() != daemon.Guix {
		c.Close()
		return nil, &DaemonError{b.socket, fmt.Errorf("it is a daemon of %s", c.Kind())}
	}
	if err := c.SetOptions(ctx, o); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Kind implements derivation.Backend.
func (b *Backend) Kind() derivation.Kind {
	return derivation.Kind{
		Dir: storepath.Guix, Type: attest.BuildTypeGuix, Tool: "guix",
		Second: "by guix-daemon", Varied: []builder.Factor{builder.FactorCPUs},
	}
}

// Version implements derivation.Backend.
func (b *Backend) Version(ctx context.Context) (string, error) {
	text, err := b.run(ctx, "ask Guix for its version", "--version")
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line) // guix (GNU Guix) 1.5.0
	if len(fields) < 2 {
		return "", fmt.Errorf("ask Guix for its version: %.100q is none", line)
	}
	return fields[len(fields)-1], nil
}

// Confinement implements derivation.Backend.
func (b *Backend) Confinement() runner.Confinement {
	c := runner.Confinement{Driver: builder.DriverGuix, Missing: b.missing}
	if len(b.missing) == 0 {
		c.Enforced = []string{"guix-sandbox"}
	}
	return c
}

// Surroundings implements derivation.Backend: a builder of guix-daemon sees what it depends on and nothing else.
func (b *Backend) Surroundings() []attest.ResourceDescriptor { return nil }

// File implements derivation.Backend.
func (b *Backend) File(path string) string { return path }

// Hashes implements derivation.Backend.
func (b *Backend) Hashes(ctx context.Context, paths []string) (map[string]digest.SHA256, error) {
	return derivation.Database(b.connect).Hashes(ctx, paths)
}

// References implements derivation.Backend.
func (b *Backend) References(ctx context.Context, path string) ([]string, error) {
	return derivation.Database(b.connect).References(ctx, path)
}

// Missing implements derivation.Backend.
func (b *Backend) Missing(ctx context.Context, paths []string) (map[string]bool, error) {
	return derivation.Database(b.connect).Missing(ctx, paths)
}

// Realise implements derivation.Backend. The daemon builds all outputs of a derivation together.
func (b *Backend) Realise(ctx context.Context, top string, outputs []drv.Wanted) error {
	drvs := map[string]bool{}
	for _, w := range outputs {
		drvs[w.Drv] = true
	}
	if len(drvs) == 0 {
		return nil
	}
	c, err := b.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return build(ctx, c, top, slices.Sorted(maps.Keys(drvs)), daemon.Normal)
}

// build has the daemon build derivations that top needs, or top itself.
func build(ctx context.Context, c *daemon.Client, top string, drvs []string, mode daemon.Mode) error {
	var log derivation.Tail
	c.Log = func(text string) { log.Write([]byte(text)) }
	err := c.Build(ctx, drvs, mode)
	if failed, ok := errors.AsType[*daemon.Error](err); ok {
		return &derivation.BuildError{Drv: top, Err: &failedError{top, failed, log.String()}, Log: log.String()}
	}
	return err
}

// failedError is what the daemon says of a build that failed.
type failedError struct {
	drv string
	err *daemon.Error
	log string
}

func (e *failedError) Error() string { return fmt.Sprintf("build %s: %v", e.drv, e.err) }

// Unwrap returns the daemon's word.
func (e *failedError) Unwrap() error { return e.err }

// Hint tells the way out.
func (e *failedError) Hint() string {
	for _, says := range []string{"getaddrinfo", "Network is unreachable", "failed to download", "Connection refused"} {
		if strings.Contains(e.log, says) {
			return noNetwork
		}
	}
	return ""
}

// Build implements derivation.Backend.
func (b *Backend) Build(ctx context.Context, path string, outputs []string) (map[string]string, error) {
	c, err := b.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := build(ctx, c, path, []string{path}, daemon.Normal); err != nil {
		return nil, err
	}
	paths, err := c.Outputs(ctx, path)
	if err != nil || len(outputs) == 0 {
		return paths, err
	}
	some := map[string]string{}
	for _, name := range outputs {
		if some[name] = paths[name]; some[name] == "" {
			return nil, fmt.Errorf("build %s: it has no output %q", path, name)
		}
	}
	return some, nil
}

// Again implements derivation.Backend: nothing is substituted, and there is one processor in place of all. What is not there yet is built; what
// is there is checked by the daemon, which leaves an output that differs beside the first.
func (b *Backend) Again(ctx context.Context, o derivation.Order, use func(derivation.Backend, map[string]derivation.Object) error) error {
	var paths []string
	for _, out := range o.Derivation.Outputs {
		paths = append(paths, out.Path)
	}
	missing, err := b.Missing(ctx, paths)
	if err != nil {
		return err
	}
	mode := daemon.Check
	if len(missing) > 0 {
		mode = daemon.Normal
	}
	c, err := b.dial(ctx, daemon.Options{Fallback: true, Cores: 1, KeepFailed: mode == daemon.Check})
	if err != nil {
		return err
	}
	defer c.Close()
	err = build(ctx, c, o.Top, []string{o.Top}, mode)
	differs := map[string]bool{}
	if failed, ok := errors.AsType[*daemon.Error](err); ok && mode == daemon.Check {
		for _, path := range paths {
			differs[path] = strings.Contains(failed.Message, "`"+path+"-check'")
		}
	}
	if err != nil && !slices.Contains(slices.Collect(maps.Values(differs)), true) {
		return err
	}
	outputs, err := derivation.Built(ctx, b, o.Top, o.Derivation)
	if err != nil {
		return err
	}
	for name, out := range outputs {
		if !differs[out.Path] {
			continue
		}
		if outputs[name], err = derivation.Read(ctx, out.Path, out.Path+"-check", nil); err != nil {
			return err
		}
	}
	return use(b, outputs)
}

// ForeignObjectError says that the daemon cannot be given an object.
type ForeignObjectError struct{ Path string }

func (e *ForeignObjectError) Error() string {
	return fmt.Sprintf("bring %s into the store: its path is not the hash of its content, and such objects the daemon takes only with an authorised key's signature", e.Path)
}

// Hint tells the way out.
func (e *ForeignObjectError) Hint() string {
	return "copy it from a machine that has it: `guix archive --export` there, `guix archive --import` here"
}

// Import implements derivation.Backend.
func (b *Backend) Import(ctx context.Context, objects []derivation.Import) error {
	if len(objects) == 0 {
		return nil
	}
	c, err := b.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, o := range objects {
		if err := add(ctx, c, o); err != nil {
			return err
		}
	}
	return nil
}

// add adds an object as what its path says that it is: a text, a tree, or a file.
func add(ctx context.Context, c *daemon.Client, o derivation.Import) error {
	at, err := storepath.Parse(o.Path)
	if err != nil {
		return err
	}
	object, err := derivation.Read(ctx, o.Path, o.File, nil)
	if err != nil {
		return err
	}
	is := func(p storepath.Path, err error) bool { return err == nil && p == at }
	switch {
	case !object.Flat.IsZero() && is(storepath.Text(at.Dir, at.Name, object.Flat, o.References)):
		text, err := derivation.ReadFile(o.File)
		if err != nil {
			return fmt.Errorf("bring %s into the store: %w", o.Path, err)
		}
		_, err = c.AddText(ctx, at.Name, text, o.References)
		return err
	case is(storepath.Source(at.Dir, at.Name, object.NAR, nil, false)):
		return addTree(ctx, c, at.Name, o.File)
	case !object.Flat.IsZero() && is(storepath.Fixed(at.Dir, at.Name, storepath.Flat, "sha256", object.Flat.Hex())):
		return addFile(ctx, c, at.Name, o.File)
	}
	return &ForeignObjectError{o.Path}
}

func addTree(ctx context.Context, c *daemon.Client, name, file string) error {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.CloseWithError(nar.Dump(ctx, w, file, nar.Options{}))
	}()
	_, err := c.AddSource(ctx, name, r, nar.Limits{})
	r.CloseWithError(io.ErrClosedPipe)
	<-done
	return err
}

func addFile(ctx context.Context, c *daemon.Client, name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = c.AddFile(ctx, name, f, info.Size())
	return err
}

// EvaluateAgain implements derivation.Backend: a derivation of Guix is the whole of its claim.
func (b *Backend) EvaluateAgain(context.Context, *manifest.Build, derivation.Fetcher) error {
	return nil
}

// narOf returns the NAR of a regular file.
func narOf(data []byte, executable bool) (*bytes.Buffer, error) {
	var buf bytes.Buffer
	w := nar.NewWriter(&buf, nar.Limits{})
	if err := w.WriteEntry(nar.Entry{Type: nar.Regular, Executable: executable, Size: int64(len(data))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	return &buf, w.Close()
}
