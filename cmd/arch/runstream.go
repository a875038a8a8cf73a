package main

import (
	"bytes"
	"io"
	"unicode/utf8"

	"arch.network/attest/digest"
	"arch.network/runner/job"
)

// stream passes on what a job prints while it prints it, and hashes it. A terminal gets it with whatever it would act on
// escaped, since the job may be anybody's; a file or pipe gets the bytes. With --json it becomes lines of JSON on stderr,
// because stdout is for the result.
type stream struct {
	app  *app
	name string
	to   io.Writer
	safe bool // to is a terminal

	sum  digest.Writer
	size int64
	rest []byte // the end of what came: the beginning of a character, or with --json of a line
	err  error  // of the last write that failed; the job goes on, its result is not lost
}

// jobOutput is a line, or a part of one, that a job printed: one of the two.
type jobOutput struct {
	Stdout string `json:"stdout,omitempty"`
	Stderr string `json:"stderr,omitempty"`
}

func (jobOutput) kind() string { return "JobOutput" }

// maxHeld bounds rest: a longer line comes in parts.
const maxHeld = 64 << 10

func newStream(a *app, name string, to io.Writer) *stream {
	return &stream{app: a, name: name, to: to, safe: isTerminal(to)}
}

// Write implements io.Writer. It takes everything.
func (s *stream) Write(p []byte) (int, error) {
	s.sum.Write(p)
	s.size += int64(len(p))
	switch {
	case s.app.json:
		s.lines(p)
	case s.safe:
		s.text(p)
	default:
		s.pass(p)
	}
	return len(p), nil
}

func (s *stream) pass(p []byte) {
	if _, err := s.to.Write(p); err != nil {
		s.err = err
	}
}

// text writes whole characters.
func (s *stream) text(p []byte) {
	s.rest = append(s.rest, p...)
	n := len(s.rest)
	for back := 1; back < utf8.UTFMax && back <= n; back++ {
		if b := s.rest[n-back]; utf8.RuneStart(b) {
			if !utf8.FullRune(s.rest[n-back:]) {
				n -= back
			}
			break
		}
	}
	s.pass([]byte(printable(string(s.rest[:n]))))
	s.rest = append(s.rest[:0], s.rest[n:]...)
}

// lines writes one object a line.
func (s *stream) lines(p []byte) {
	s.rest = append(s.rest, p...)
	for {
		n := bytes.IndexByte(s.rest, '\n') + 1
		if n == 0 && len(s.rest) >= maxHeld {
			n = maxHeld
		}
		if n == 0 {
			return
		}
		s.object(s.rest[:n])
		s.rest = append(s.rest[:0], s.rest[n:]...)
	}
}

func (s *stream) object(line []byte) {
	if s.app.quiet {
		return
	}
	if s.name == "stderr" {
		s.app.jsonLine(jobOutput{Stderr: string(line)})
		return
	}
	s.app.jsonLine(jobOutput{Stdout: string(line)})
}

// flush writes what is left, and returns what went wrong on the way.
func (s *stream) flush() error {
	if len(s.rest) > 0 {
		if s.app.json {
			s.object(s.rest)
		} else {
			s.pass([]byte(printable(string(s.rest))))
		}
		s.rest = nil
	}
	return s.err
}

func (s *stream) printed() job.Printed { return job.Printed{Digest: s.sum.Sum(), Size: s.size} }
