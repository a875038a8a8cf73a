package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"arch.network/attest/canonical"
)

// kind says what a frame is.
type kind byte

// The kinds of frames.
const (
	kindRequest kind = 'Q'
	kindNeed    kind = 'N'
	kindLack    kind = 'L'
	kindData    kind = 'D'
	kindEnd     kind = 'E'
	kindStarted kind = 'S'
	kindStdout  kind = '1'
	kindStderr  kind = '2'
	kindOutput  kind = 'O'
	kindResult  kind = 'R'
	kindJob     kind = 'J'
	kindStop    kind = 'P'
	kindRefusal kind = 'X'
)

// The limits of frames.
const (
	maxData    = 256 << 10 // bytes of the body of a data frame
	maxMessage = 128 << 10 // bytes of the body of every other frame; an envelope of 64 KiB in base64 fits
	headSize   = 5
)

// limit is the longest body of a kind; -1: there is no such kind.
func (k kind) limit() int {
	switch k {
	case kindData, kindStdout, kindStderr:
		return maxData
	case kindEnd, kindStop:
		return 0
	case kindRequest, kindNeed, kindLack, kindStarted, kindOutput, kindResult, kindJob, kindRefusal:
		return maxMessage
	}
	return -1
}

// protocolError says that the other side broke the protocol.
type protocolError struct{ msg string }

func (e *protocolError) Error() string { return e.msg }

func protocolErrorf(format string, args ...any) error {
	return &protocolError{fmt.Sprintf(format, args...)}
}

// errCut is a conversation that ended where none may.
var errCut = protocolErrorf("the connection ended within a frame")

// frameReader reads frames. Its memory is one body, which grows only as far as a frame that is allowed is long.
type frameReader struct {
	r    io.Reader
	body []byte
}

// next reads one frame, which must be of one of the kinds. The body is good until the next call. At the end between two
// frames the error is io.EOF.
func (f *frameReader) next(allowed ...kind) (kind, []byte, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, nil, errCut
		}
		return 0, nil, err
	}
	k, size := kind(head[4]), binary.BigEndian.Uint32(head[:4])
	expected := false
	for _, a := range allowed {
		expected = expected || a == k
	}
	switch limit := k.limit(); {
	case limit < 0:
		return 0, nil, protocolErrorf("there is no frame of kind %q", rune(k))
	case !expected:
		return 0, nil, protocolErrorf("a frame of kind %q is not due", rune(k))
	case int64(size) > int64(limit):
		return 0, nil, protocolErrorf("a frame of kind %q has %d bytes, the limit is %d", rune(k), size, limit)
	}
	if int(size) > cap(f.body) {
		f.body = make([]byte, size)
	}
	body := f.body[:size]
	if _, err := io.ReadFull(f.r, body); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, nil, errCut
		}
		return 0, nil, err
	}
	return k, body, nil
}

// appendFrame adds a frame to out.
func appendFrame(out []byte, k kind, body []byte) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	out = append(out, byte(k))
	return append(out, body...)
}

// encode makes a frame of a message.
func encode(k kind, message any) ([]byte, error) {
	body, err := canonical.Marshal(message)
	if err != nil {
		return nil, err
	}
	if len(body) > k.limit() {
		return nil, fmt.Errorf("a message of kind %q has %d bytes, the limit is %d", rune(k), len(body), k.limit())
	}
	return appendFrame(nil, k, body), nil
}

// decode reads a message.
func decode(body []byte, message any) error {
	if err := canonical.Unmarshal(body, message); err != nil {
		return protocolErrorf("%v", err)
	}
	return nil
}
