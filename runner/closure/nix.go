package closure

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"arch.network/attest/digest"
)

// Nix asks the database of a Nix store through the program nix-store, which works with and without a daemon. Whoever administers the
// host wrote that database: its word is as good as the host's own programs.
type Nix struct {
	Program string   // empty: "nix-store" in PATH
	Args    []string // before all others, such as "--store", "/mnt"
	Env     []string // of the program; nil: this process's
}

// maxAnswer bounds what nix-store may say, in bytes. A closure of 10,000 paths takes 5 MiB.
const maxAnswer = 256 << 20

// Closure returns what the database says of a store path and of all that it refers to, by path. With it, Verify is a look-up in
// the result. That the database does not have the path is ErrUnknown.
func (n Nix) Closure(ctx context.Context, top string) (map[string]Proof, error) {
	if _, ok := storeOf(top); !ok {
		return nil, fmt.Errorf("ask nix-store: %q is no store path", top)
	}
	valid, err := n.run(ctx, "--check-validity", "--print-invalid", top)
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(valid)) > 0 {
		return nil, fmt.Errorf("store path %s: %w", top, ErrUnknown)
	}
	out, err := n.run(ctx, "--query", "--requisites", top)
	if err != nil {
		return nil, err
	}
	paths := strings.Fields(string(out))
	for _, p := range paths {
		if _, ok := storeOf(p); !ok {
			return nil, fmt.Errorf("ask nix-store: its answer %.200q is no store path", p)
		}
	}
	if out, err = n.run(ctx, append([]string{"--dump-db"}, paths...)...); err != nil {
		return nil, err
	}
	return parseRegistrations(out)
}

func (n Nix) run(ctx context.Context, args ...string) ([]byte, error) {
	program := n.Program
	if program == "" {
		program = "nix-store"
	}
	cmd := exec.CommandContext(ctx, program, slices.Concat(n.Args, args)...)
	cmd.Env = n.Env
	var stdout, stderr limitedBuffer
	stdout.max, stderr.max = maxAnswer, 64<<10
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return nil, fmt.Errorf("ask nix-store: %w: %.300q", err, lines[len(lines)-1])
	}
	return stdout.Bytes(), nil
}

// limitedBuffer is an error to write too much to.
type limitedBuffer struct {
	bytes.Buffer
	max int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.max {
		return 0, fmt.Errorf("the answer has more than %d bytes", b.max)
	}
	return b.Buffer.Write(p)
}

// parseRegistrations reads the form of nix-store --dump-db and --register-validity: for each path the lines path, SHA-256 of the NAR in
// hexadecimal, size of the NAR, deriver or nothing, number of references, and each reference.
func parseRegistrations(text []byte) (map[string]Proof, error) {
	r := &registrations{bufio.NewReader(bytes.NewReader(text))}
	all := map[string]Proof{}
	for {
		path, err := r.line()
		if err == io.EOF {
			return all, nil
		}
		var proof Proof
		if err == nil {
			proof, err = r.proof()
		}
		if _, ok := storeOf(path); err == nil && !ok {
			err = errors.New("it is no store path")
		}
		if _, twice := all[path]; err == nil && twice {
			err = errors.New("it is there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("read the store's database: path %.200q: %w", path, err)
		}
		all[path] = proof
	}
}

type registrations struct {
	*bufio.Reader
}

func (r *registrations) line() (string, error) {
	line, err := r.ReadString('\n')
	if err == io.EOF && line != "" {
		err = io.ErrUnexpectedEOF
	}
	return strings.TrimSuffix(line, "\n"), err
}

// must is line where there must be one.
func (r *registrations) must() (string, error) {
	line, err := r.line()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return line, err
}

func (r *registrations) proof() (Proof, error) {
	var lines [4]string
	for i := range lines {
		var err error
		if lines[i], err = r.must(); err != nil {
			return Proof{}, err
		}
	}
	p := Proof{Source: "nix database", References: []string{}}
	sum, err := hex.DecodeString(strings.TrimPrefix(lines[0], "sha256:"))
	if err != nil || len(sum) != len(p.NAR) {
		return Proof{}, fmt.Errorf("its hash is %.80q", lines[0])
	}
	p.NAR = digest.SHA256(sum)
	count, err := strconv.ParseUint(lines[3], 10, 20)
	if err != nil {
		return Proof{}, fmt.Errorf("its number of references is %.20q", lines[3])
	}
	for range count {
		ref, err := r.must()
		if err != nil {
			return Proof{}, err
		}
		p.References = append(p.References, ref)
	}
	return p, nil
}

// Lookup makes Options.Verify of what is known of each path.
func Lookup(known map[string]Proof) func(context.Context, string) (Proof, error) {
	return func(_ context.Context, path string) (Proof, error) {
		p, ok := known[path]
		if !ok {
			return Proof{}, ErrUnknown
		}
		return p, nil
	}
}
