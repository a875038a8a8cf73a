package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// External is a signer whose key stays with another program: a hardware token, an agent, a wrapper of gpg.
//
// "exec:COMMAND" names it. COMMAND is split at white space and run without a shell, with these arguments added:
//
//	public          write the public key to stdout: a did:key, or an OpenPGP certificate in ASCII armour
//	sign PUBLICKEY  read the message from stdin until its end, write the raw signature to stdout
//
// PUBLICKEY is the name of the key that shall sign. What PublicKey.Verify accepts is the form of the signature. Exit status
// zero means success; stderr is free for people. The message is the DSSE pre-authentication encoding, which begins with
// "DSSEv1 " and names the type of the payload, so the command can show or refuse what it signs.
//
// Each run is bounded in time and output. A signature that does not verify is an error and never returned.
type External struct {
	public  PublicKey
	argv    []string
	timeout time.Duration
	stderr  io.Writer
}

const (
	defaultSignTimeout = 2 * time.Minute
	// waitAfterKill is how long we wait for a killed command's children to let go of its output.
	waitAfterKill = time.Second
)

// newExternal asks the command for its key unless the options name it.
func newExternal(ctx context.Context, command string, opts LoadOptions) (*External, error) {
	e := &External{
		public:  opts.Public,
		argv:    strings.Fields(command),
		timeout: opts.Timeout,
		stderr:  opts.Stderr,
	}
	if len(e.argv) == 0 {
		return nil, errors.New(`no command after "exec:"`)
	}
	if e.timeout <= 0 {
		e.timeout = defaultSignTimeout
	}
	if !e.public.IsZero() {
		return e, nil
	}
	out, err := e.run(ctx, nil, MaxCertificate, "public")
	if err != nil {
		return nil, err
	}
	e.public, err = parseAnswer(out)
	return e, err
}

// parseAnswer reads a public key of either kind.
func parseAnswer(out []byte) (PublicKey, error) {
	if text := bytes.TrimSpace(out); bytes.HasPrefix(text, []byte("did:")) {
		return ParsePublicKey(string(text))
	}
	return ParseOpenPGP(out)
}

// Public returns the key of which the command says, or the caller said, that it signs.
func (e *External) Public() PublicKey { return e.public }

// Sign runs the command and verifies what it returns.
func (e *External) Sign(ctx context.Context, message []byte) ([]byte, error) {
	sig, err := e.run(ctx, message, MaxOpenPGPSignature, "sign", e.public.String())
	if err != nil {
		return nil, err
	}
	if err := e.public.Verify(message, sig); err != nil {
		return nil, fmt.Errorf("external signer %s returned a wrong signature: %w", e.argv[0], err)
	}
	return sig, nil
}

// run returns the command's output, which must not exceed most bytes.
func (e *External) run(ctx context.Context, stdin []byte, most int, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	argv := append(append([]string(nil), e.argv...), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.WaitDelay = waitAfterKill
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stderr = e.stderr
	out := &boundedBuffer{most: most}
	cmd.Stdout = out
	err := cmd.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("no answer within %v", e.timeout)
	case ctx.Err() != nil:
		err = ctx.Err()
	case out.full:
		err = fmt.Errorf("more than %d bytes of output", most)
	}
	if err != nil {
		return nil, fmt.Errorf("external signer %s %s: %w", e.argv[0], args[0], err)
	}
	return out.data, nil
}

// boundedBuffer stops its writer when it is full.
type boundedBuffer struct {
	data []byte
	most int
	full bool
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if len(b.data)+len(p) > b.most {
		b.full = true
		return 0, errors.New("too much output")
	}
	b.data = append(b.data, p...)
	return len(p), nil
}
