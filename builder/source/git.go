package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"arch.network/attest/digest"
	"arch.network/attest/manifest"
	"arch.network/builder/source/unpack"
	"arch.network/builder/store"
)

// git puts the tree of a commit into the store, if its NAR hash is the pinned one.
func (f *Fetcher) git(ctx context.Context, ref manifest.Ref) error {
	repo, err := f.openRepository(ctx, ref.Location)
	if err != nil {
		return err
	}
	defer repo.close()
	if err := repo.fetchCommit(ctx, ref.Version); err != nil {
		return err
	}
	_, err = f.addCommit(ctx, repo, ref.Version, ref.Digest)
	if m, ok := errors.AsType[*store.MismatchError](err); ok {
		return pinMismatch(ref.String(), m.Want, m.Got)
	}
	return err
}

// addCommit stores the tree of a fetched commit.
func (f *Fetcher) addCommit(ctx context.Context, repo *repository, commit string, want digest.SHA256) (digest.SHA256, error) {
	return f.Store.AddTreeFunc(ctx, func(dir string) error {
		t, err := unpack.New(dir, unpack.Strict, f.Limits)
		if err != nil {
			return err
		}
		return errors.Join(repo.export(ctx, commit, t), t.Close())
	}, want)
}

// repository is a temporary bare git repository, which git fetches into with an environment of its own: no
// configuration of the machine or the user, no hooks, no filters, no prompts, no other protocols.
type repository struct {
	f   *Fetcher
	git string // program
	dir string
	url string // as git takes it
}

// protocols are what a repository may be read by: what its URL says, and for http what a server may redirect to.
func (r *repository) protocols() string {
	switch scheme, _, _ := strings.Cut(r.url, "://"); scheme {
	case "http":
		return "http:https"
	case "https", "file":
		return scheme // never from https to http, never from either to file
	}
	return "none" // there is no such protocol; with an empty list git would allow its defaults
}

// gitStall is for how many seconds a server may send nothing, as for our own downloads.
const gitStall = int(stallTimeout / time.Second)

func (f *Fetcher) openRepository(ctx context.Context, location string) (*repository, error) {
	address := strings.TrimPrefix(location, "git+")
	if _, local := filePath(address); f.Offline && !local {
		return nil, &MissingError{Inputs: []string{location}, Cure: offlineCure}
	}
	program := f.Git
	if program == "" {
		program = "git"
	}
	program, err := exec.LookPath(program)
	if err != nil {
		return nil, &sourceError{"git is needed to fetch " + location + ": " + err.Error(), "install git, or name an archive or a mirror that holds the tree"}
	}
	dir, err := os.MkdirTemp("", "arch-git-")
	if err != nil {
		return nil, err
	}
	r := &repository{f, program, dir, address}
	return r, nil
}

func (r *repository) close() error { return os.RemoveAll(r.dir) }

// init makes the repository, for SHA-1 or SHA-256 ids as the commit's length says.
func (r *repository) init(ctx context.Context, commit string) error {
	format := "sha1"
	if len(commit) == 64 {
		format = "sha256"
	}
	if err := os.RemoveAll(r.gitDir()); err != nil {
		return err
	}
	_, err := r.run(ctx, "init", "--quiet", "--bare", "--template=", "--object-format="+format, r.gitDir())
	return err
}

func (r *repository) gitDir() string { return filepath.Join(r.dir, "repo") }

// command prepares git with a clean environment. Proxies and certificate files of the machine remain.
func (r *repository) command(ctx context.Context, args ...string) *exec.Cmd {
	fixed := []string{
		"-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "protocol.version=2",
		"-c", "credential.helper=", "-c", "core.askPass=true", "-c", "http.followRedirects=initial", "-c", "safe.directory=*",
		"-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=" + strconv.Itoa(gitStall),
	}
	cmd := exec.CommandContext(ctx, r.git, append(fixed, args...)...)
	cmd.Dir = r.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=" + r.protocols(), "GIT_PROTOCOL_FROM_USER=0", "GIT_NO_REPLACE_OBJECTS=1",
		"GIT_ATTR_NOSYSTEM=1", "GIT_LFS_SKIP_SMUDGE=1", "GIT_DIR=" + r.gitDir(),
	}
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	// git fetch leaves the network to a process of its own, which would go on after git is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err != syscall.ESRCH {
			return err
		}
		return os.ErrProcessDone
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// maxGitText bounds what is read of git's listings and messages.
const maxGitText = 256 << 20

// run runs git and returns what it prints.
func (r *repository) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := r.command(ctx, args...)
	var out, errs bounded
	out.max, errs.max = maxGitText, 64<<10
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("git %s: %w: %.500q", args[0], err, bytes.TrimSpace(errs.Bytes()))
	}
	if out.over {
		return nil, fmt.Errorf("git %s: more than %d bytes of output", args[0], maxGitText)
	}
	return out.Bytes(), nil
}

// bounded keeps the first max bytes.
type bounded struct {
	bytes.Buffer
	max  int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := min(len(p), b.max-b.Len())
	b.over = b.over || keep < len(p)
	b.Buffer.Write(p[:keep])
	return len(p), nil
}

// fetchCommit gets one commit: alone if the server gives single commits, otherwise with everything that has a name.
func (r *repository) fetchCommit(ctx context.Context, commit string) error {
	r.f.log(Event{Kind: EventStart, What: r.url, Detail: "commit " + commit})
	if err := r.init(ctx, commit); err != nil {
		return err
	}
	err := r.fetch(ctx, "--depth=1", "--", r.url, commit)
	if err != nil && ctx.Err() == nil {
		r.f.log(Event{Kind: EventSkip, What: r.url, Detail: "a single commit is not to be had: " + err.Error()})
		if err := r.init(ctx, commit); err != nil {
			return err
		}
		err = r.fetch(ctx, "--", r.url, "+refs/*:refs/*")
	}
	if err != nil {
		return err
	}
	id, err := r.run(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", commit+"^{commit}")
	if err != nil {
		return &sourceError{fmt.Sprintf("%s has no commit %s", r.url, commit), "check the commit id; a commit that no branch or tag holds any more may be gone"}
	}
	if got := strings.TrimSpace(string(id)); got != commit {
		return &PinError{Ref: r.url, Want: commit, Got: got}
	}
	r.f.log(Event{Kind: EventDone, What: r.url, Detail: "commit " + commit})
	return nil
}

// fetch runs git fetch, and ends it when more arrives than a download may have.
func (r *repository) fetch(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	var over atomic.Bool
	go func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				size := dirSize(r.gitDir())
				r.f.log(Event{Kind: EventProgress, What: r.url, Bytes: size})
				if size > r.f.maxDownload() {
					over.Store(true)
					cancel(nil)
				}
			}
		}
	}()
	_, err := r.run(ctx, append([]string{"fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"}, args...)...)
	close(done)
	if over.Load() || dirSize(r.gitDir()) > r.f.maxDownload() {
		return tooLarge(r.url, r.f.maxDownload())
	}
	return err
}

func dirSize(dir string) int64 {
	var n int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // git removes its temporary files as it goes
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}

// gitEntry is one line of git ls-tree.
type gitEntry struct {
	mode, id, name string
}

// export writes the files of a commit as git stores them: no attributes, no line-end conversion, no filters.
func (r *repository) export(ctx context.Context, commit string, t *unpack.Tree) error {
	entries, err := r.list(ctx, commit)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := r.command(ctx, "cat-file", "--batch")
	cmd.Stdin = requests(entries)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("git cat-file: %w", err)
	}
	err = readObjects(bufio.NewReaderSize(out, 64<<10), entries, t)
	if err != nil {
		cancel() // it may be waiting for a reader
	}
	if waited := cmd.Wait(); err == nil && waited != nil {
		err = fmt.Errorf("git cat-file: %w", waited)
	}
	return err
}

// requests is the input of cat-file: one object id a line.
func requests(entries []gitEntry) io.Reader {
	var b bytes.Buffer
	for _, e := range entries {
		b.WriteString(e.id + "\n")
	}
	return &b
}

func (r *repository) list(ctx context.Context, commit string) ([]gitEntry, error) {
	out, err := r.run(ctx, "ls-tree", "-r", "-z", "--full-tree", commit)
	if err != nil {
		return nil, err
	}
	return parseTree(out, r.url)
}

// parseTree reads the answer of ls-tree -z: "MODE TYPE ID\tNAME\0" for each file. The url is for errors.
func parseTree(out []byte, url string) ([]gitEntry, error) {
	var entries []gitEntry
	for line := range strings.SplitSeq(string(out), "\x00") {
		if line == "" {
			continue
		}
		meta, name, ok := strings.Cut(line, "\t")
		fields := strings.Fields(meta)
		if !ok || len(fields) != 3 {
			return nil, fmt.Errorf("git ls-tree: line %.100q is not understood", line)
		}
		e := gitEntry{fields[0], fields[2], name}
		if e.mode == "160000" {
			return nil, &sourceError{
				fmt.Sprintf("%s: %q is a submodule", url, name),
				"submodules are not followed: give each its own input, mounted at its place",
			}
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// readObjects reads the answers of cat-file --batch: "ID blob SIZE\n", the content, "\n".
func readObjects(out *bufio.Reader, entries []gitEntry, t *unpack.Tree) error {
	for _, e := range entries {
		head, err := out.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("git cat-file: %w", err)
		}
		fields := strings.Fields(string(head))
		if len(fields) != 3 || fields[0] != e.id || fields[1] != "blob" {
			return fmt.Errorf("git cat-file: answer %.100q for %s", head, e.id)
		}
		size, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return fmt.Errorf("git cat-file: size %.40q of %s", fields[2], e.id)
		}
		if err := placeObject(out, e, size, t); err != nil {
			return err
		}
		if end, err := out.ReadByte(); err != nil || end != '\n' {
			return fmt.Errorf("git cat-file: %s does not end where it should", e.id)
		}
	}
	return nil
}

func placeObject(out io.Reader, e gitEntry, size int64, t *unpack.Tree) error {
	switch e.mode {
	case "100644", "100664":
		return t.File(e.name, false, size, out)
	case "100755":
		return t.File(e.name, true, size, out)
	case "120000":
		const pathMax = 4096
		if size > pathMax {
			return fmt.Errorf("symbolic link %q has a target of %d bytes", e.name, size)
		}
		target := make([]byte, size)
		if _, err := io.ReadFull(out, target); err != nil {
			return err
		}
		return t.Symlink(e.name, string(target))
	}
	return fmt.Errorf("git entry %q has the unknown mode %q", e.name, e.mode)
}
