package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"arch.network/attest/digest/storepath"

	"github.com/nix-community/go-nix/pkg/wire"
)

// Limits of what a daemon may send. The largest real ones: an error with the end of a build log has some 10 KiB; the top of a system refers to
// fewer than 10,000 paths.
const (
	maxText   = 1 << 20 // bytes of a message
	maxWord   = 4 << 10 // bytes of a path, a hash, a signature, a name
	maxList   = 1 << 16
	maxFields = 64
	maxTraces = 1 << 10
	maxTrace  = 64 << 10 // bytes of each
)

// decoder reads what a daemon sends. Errors are of type *ProtocolError.
type decoder struct {
	*bufio.Reader // of at least 64 KiB, see nar.Copy
	dir           string
}

func broken(reason string, err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &ProtocolError{reason, err}
}

func (d *decoder) number() (uint64, error) {
	n, err := wire.ReadUint64(d)
	if err != nil {
		return 0, broken("read a number", err)
	}
	return n, nil
}

// count reads a number that must not be over a limit.
func (d *decoder) count(limit int64) (int64, error) {
	n, err := d.number()
	if err == nil && n > uint64(limit) {
		return 0, &ProtocolError{Reason: fmt.Sprintf("a number is %d, more than %d", n, limit)}
	}
	return int64(n), err
}

func (d *decoder) flag() (bool, error) {
	v, err := wire.ReadBool(d)
	if err != nil {
		return false, broken("read a flag", err)
	}
	return v, nil
}

// text reads a text. It is not wire.ReadString, which does not mind padding that is not zero or not there.
func (d *decoder) text(limit int64) (string, error) {
	n, err := d.count(limit)
	if err != nil {
		return "", err
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(d, text); err != nil {
		return "", broken("read a text", err)
	}
	return string(text), d.padding(n)
}

// padding reads the zeros that follow n bytes.
func (d *decoder) padding(n int64) error {
	var zeros [8]byte
	if _, err := io.ReadFull(d, zeros[:-n&7]); err != nil {
		return broken("read padding", err)
	}
	if zeros != [8]byte{} {
		return &ProtocolError{Reason: "padding is not zero"}
	}
	return nil
}

func (d *decoder) word() (string, error) { return d.text(maxWord) }

// list reads a list, each element with read.
func (d *decoder) list(read func() (string, error)) ([]string, error) {
	n, err := d.count(maxList)
	var list []string
	for ; err == nil && n > 0; n-- {
		var s string
		if s, err = read(); err == nil {
			list = append(list, s)
		}
	}
	return list, err
}

// path reads the path of a store object.
func (d *decoder) path() (string, error) {
	path, err := d.optionalPath()
	if err == nil && path == "" {
		return "", &ProtocolError{Reason: "a store path is missing"}
	}
	return path, err
}

// optionalPath reads the path of a store object, or nothing.
func (d *decoder) optionalPath() (string, error) {
	text, err := d.word()
	if err != nil || text == "" {
		return "", err
	}
	if err := checkPath(text, d.dir); err != nil {
		return "", broken("read a store path", err)
	}
	return text, nil
}

// checkPath reports what is wrong with the path of a store object.
func checkPath(path, dir string) error {
	p, err := storepath.Parse(path)
	if err == nil && p.Dir != dir {
		err = fmt.Errorf("%s is not in %s", path, dir)
	}
	return err
}

// The frames that precede results (worker-protocol.hh). By another, STDERR_READ, a daemon asks for data: in no request that is made here.
const (
	frameNext          = 0x6f6c6d67 // a message
	frameWrite         = 0x64617416 // data
	frameLast          = 0x616c7473
	frameError         = 0x63787470
	frameStartActivity = 0x53545254
	frameStopActivity  = 0x53544f50
	frameResult        = 0x52534c54
)

// What the results of activities say that is of use here (Nix: ResultType of logging.hh).
const (
	resultBuildLogLine     = 101
	resultPostBuildLogLine = 107
)

// fields reads the fields of an activity or a result, and returns the texts among them.
func (d *decoder) fields() ([]string, error) {
	n, err := d.count(maxFields)
	var texts []string
	for ; err == nil && n > 0; n-- {
		var kind uint64
		if kind, err = d.number(); err != nil {
			break
		}
		switch kind {
		case 0:
			_, err = d.number()
		case 1:
			var s string
			if s, err = d.text(maxText); err == nil {
				texts = append(texts, s)
			}
		default:
			err = &ProtocolError{Reason: fmt.Sprintf("a field is of the unknown kind %d", kind)}
		}
	}
	return texts, err
}

// activity reads what begins, and returns how it is described.
func (d *decoder) activity() (string, error) {
	for range 3 { // its number, how important it is, its type
		if _, err := d.number(); err != nil {
			return "", err
		}
	}
	text, err := d.text(maxText)
	if err == nil {
		_, err = d.fields()
	}
	if text != "" {
		text += "\n"
	}
	if err == nil {
		_, err = d.number() // of what it is a part of
	}
	return text, err
}

// result reads what an activity has to say, and returns it if it is a line of a log.
func (d *decoder) result() (string, error) {
	if _, err := d.number(); err != nil {
		return "", err
	}
	kind, err := d.number()
	if err != nil {
		return "", err
	}
	texts, err := d.fields()
	if err != nil || len(texts) != 1 || kind != resultBuildLogLine && kind != resultPostBuildLogLine {
		return "", err
	}
	return texts[0] + "\n", nil
}

// failure reads an error, as Guix sends it, or as Nix does since 1.26.
func (d *decoder) failure(kind Kind) (*Error, error) {
	if kind == Guix {
		text, err := d.text(maxText)
		if err != nil {
			return nil, err
		}
		status, err := d.count(1 << 16)
		return &Error{Message: text, Status: int(status)}, err
	}
	word, err := d.word()
	if err == nil && word != "Error" {
		err = &ProtocolError{Reason: fmt.Sprintf("an error is of the unknown kind %.100q", word)}
	}
	if err == nil {
		_, err = d.number() // how important it is
	}
	if err == nil {
		_, err = d.word() // once a name
	}
	if err != nil {
		return nil, err
	}
	e := &Error{}
	if e.Message, err = d.text(maxText); err == nil {
		err = d.noPosition()
	}
	if err != nil {
		return nil, err
	}
	n, err := d.count(maxTraces)
	for ; err == nil && n > 0; n-- {
		if err = d.noPosition(); err != nil {
			break
		}
		var s string
		if s, err = d.text(maxTrace); err == nil {
			e.Traces = append(e.Traces, s)
		}
	}
	return e, err
}

// noPosition reads whether a place in a file follows: Nix never sends one.
func (d *decoder) noPosition() error {
	has, err := d.flag()
	if err == nil && has {
		err = &ProtocolError{Reason: "an error has a position"}
	}
	return err
}

// frames reads frames up to the last, or up to one with data, if there may be some, whose text is then to be read; or up to the daemon's error,
// which is of type *Error. Messages are handed to log.
func (d *decoder) frames(kind Kind, log func(string), data bool) (more bool, err error) {
	for {
		frame, err := d.number()
		if err != nil {
			return false, err
		}
		var text string
		switch {
		case frame == frameLast:
			return false, nil
		case frame == frameWrite && data:
			return true, nil
		case frame == frameError:
			e, err := d.failure(kind)
			if err != nil {
				return false, err
			}
			return false, e
		case frame == frameNext:
			text, err = d.text(maxText)
		case frame == frameStartActivity && kind == Nix:
			text, err = d.activity()
		case frame == frameStopActivity && kind == Nix:
			_, err = d.number()
		case frame == frameResult && kind == Nix:
			text, err = d.result()
		default:
			err = &ProtocolError{Reason: fmt.Sprintf("a frame is of the kind %#x, which was not to come", frame)}
		}
		if err != nil {
			return false, err
		}
		if text != "" && log != nil {
			log(text)
		}
	}
}

// isDaemon reports whether an error is the daemon's own word, after which the connection goes on.
func isDaemon(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}
