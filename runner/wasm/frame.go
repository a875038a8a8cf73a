package wasm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The conversation of a Runner and its worker, version 1, over a stream socket. Both send frames: a byte that tells the type,
// the length of the content (four bytes, little-endian, at most maxFrame), the content. What is not expected ends the conversation.
//
//	Runner            worker
//	task, module…  →             what to prepare, and the module's bytes in pieces
//	               ←  phase…     what it is doing now
//	               ←  ready      to a task that only prepares; then comes another task
//	task, files…   →             what to run; descriptors of files go with the frames that announce them
//	               ←  stdout, stderr, extra …
//	               ←  output…, outputEnd   archives, to a task that asks for them
//	               ←  report     the end
//	stop           →             at any time while it runs, for an Extension
type frame byte

const (
	frameTask      frame = 't' // task as JSON
	frameModule    frame = 'm' // a piece of the module
	frameFiles     frame = 'f' // one byte, how many descriptors come with it
	frameStop      frame = 's' // empty
	framePhase     frame = 'p' // one byte, a phase
	frameStdout    frame = 1
	frameStderr    frame = 2
	frameOutput    frame = 'o' // a piece of an output's NAR
	frameOutputEnd frame = 'e' // the output is complete; empty
	frameExtra     frame = 'x' // a piece of what an Extension sends or gets
	frameReport    frame = 'r' // report as JSON; nothing follows
)

// maxFrame bounds the content of one frame: bytes.
const maxFrame = 1 << 20

// protocolError says that the other side does not keep to the protocol.
type protocolError struct {
	what   string
	header []byte // of a frame that is too long; it may be text
}

func (e *protocolError) Error() string { return "worker broke the protocol: " + e.what }

// stray makes the error of a frame that was not expected.
func stray(f frame) error { return broken("unexpected frame %q", byte(f)) }

func broken(format string, args ...any) error {
	return &protocolError{what: fmt.Sprintf(format, args...)}
}

// writeFrame writes one frame.
func writeFrame(w io.Writer, f frame, content []byte) error {
	if len(content) > maxFrame {
		return fmt.Errorf("send frame %q: %d bytes are more than %d", byte(f), len(content), maxFrame)
	}
	b := frameHeader(make([]byte, 0, 5+len(content)), f, len(content))
	_, err := w.Write(append(b, content...))
	return err
}

// frameHeader appends the header of a frame with n bytes of content.
func frameHeader(b []byte, f frame, n int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, byte(f)), uint32(n))
}

// writePieces writes content as as many frames as it needs.
func writePieces(w io.Writer, f frame, content []byte) error {
	for len(content) > 0 {
		n := min(len(content), maxFrame)
		if err := writeFrame(w, f, content[:n]); err != nil {
			return err
		}
		content = content[n:]
	}
	return nil
}

// readHeader reads a frame up to its content. At the end of the stream it returns io.EOF.
func readHeader(r io.Reader) (frame, int, error) {
	var b [5]byte
	if n, err := io.ReadFull(r, b[:]); err != nil {
		if n > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
			err = broken("the conversation ends inside of a frame")
		}
		return 0, 0, err
	}
	n := binary.LittleEndian.Uint32(b[1:])
	if n > maxFrame {
		return 0, 0, &protocolError{fmt.Sprintf("frame %q of %d bytes, more than %d", b[0], n, maxFrame), b[:]}
	}
	return frame(b[0]), int(n), nil
}

// readFrame reads one frame into buffer, which grows as needed, and returns the part of it that it filled.
func readFrame(r io.Reader, buffer *[]byte) (frame, []byte, error) {
	f, n, err := readHeader(r)
	if err != nil {
		return 0, nil, err
	}
	if cap(*buffer) < n {
		*buffer = make([]byte, n)
	}
	content := (*buffer)[:n]
	if _, err := io.ReadFull(r, content); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = broken("the conversation ends inside of a frame")
		}
		return 0, nil, err
	}
	return f, content, nil
}

// pieces is an io.Writer that sends what is written as frames of one type.
type pieces struct {
	w io.Writer
	f frame
}

func (p pieces) Write(b []byte) (int, error) {
	if err := writePieces(p.w, p.f, b); err != nil {
		return 0, err
	}
	return len(b), nil
}
