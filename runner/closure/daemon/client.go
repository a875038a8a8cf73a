package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"arch.network/attest/digest/storepath"

	"github.com/nix-community/go-nix/pkg/wire"
)

// Where the daemons listen, if nobody says otherwise.
const (
	NixSocket  = "/nix/var/nix/daemon-socket/socket"
	GuixSocket = "/var/guix/daemon-socket/socket"
)

// Kind says whose daemon one is.
type Kind string

// The kinds of daemons.
const (
	Nix  Kind = "Nix"
	Guix Kind = "Guix"
)

const (
	clientMagic = 0x6e697863
	serverMagic = 0x6478696f
	ourVersion  = 1<<8 | 34
	leastNix    = 1<<8 | 26 // Nix 2.4
	leastGuix   = 1<<8 | 96 // Guix's own numbers begin here
	bufferSize  = 64 << 10  // bytes; what nar.Copy wants
)

// Client is a connection to a daemon. It is used by one goroutine at a time.
//
// After an *Error, the daemon's word that it could not do something, it can be used further. If a request ends in the middle of talking, because
// the answer is none, the context was cancelled, or what was to be sent could not be read, the connection is closed, and every later request
// returns the same error.
type Client struct {
	// Log is given what the daemon and its builders have to say during a request, as it comes: lines of at most 1 MiB, or parts of lines,
	// untrusted. It is called before the request returns, in its goroutine. Nil: nobody wants to know.
	Log func(text string)

	conn    net.Conn
	out     *bufio.Writer
	in      decoder
	kind    Kind
	version uint64 // the daemon's
	release string
	end     func() // waits for the program that Start started; nil: there is none

	mu  sync.Mutex // guards err
	err error      // why the connection is closed
}

// Dial connects to the daemon that listens at a Unix socket. Close must be called.
func Dial(ctx context.Context, socket string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the store's daemon: %w", err)
	}
	return New(ctx, conn)
}

// New greets the daemon at the other end of a connection, which is the Client's from now on, also on error.
func New(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{conn: conn, out: bufio.NewWriterSize(conn, bufferSize), in: decoder{Reader: bufio.NewReaderSize(conn, bufferSize)}}
	if err := c.guarded(ctx, "greet the store's daemon", c.greet); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the connection. The daemon ends what it does for it, and itself if Start started it.
func (c *Client) Close() error {
	c.fail(net.ErrClosed)
	if c.end != nil {
		c.end()
	}
	return nil
}

// Kind returns whose daemon it is.
func (c *Client) Kind() Kind { return c.kind }

// Version returns the version of the protocol that the daemon speaks, such as "1.34", and the version of the daemon, if it told: untrusted.
func (c *Client) Version() (protocol, release string) {
	return fmt.Sprintf("%d.%d", c.version>>8, c.version&0xff), c.release
}

// Dir returns the directory of the store.
func (c *Client) Dir() string { return c.in.dir }

func (c *Client) greet() error {
	if err := c.send(clientMagic); err != nil {
		return err
	}
	magic, err := c.in.number()
	if err == nil && magic != serverMagic {
		err = &ProtocolError{Reason: "it is no daemon of a Nix or Guix store"}
	}
	if err == nil {
		c.version, err = c.in.number()
	}
	if err != nil {
		return err
	}
	switch v := c.version; {
	case v < leastNix || v>>8 != 1:
		return &ProtocolError{Reason: fmt.Sprintf("it speaks version %d.%d of the protocol, not 1.26 or later", v>>8, v&0xff)}
	case v >= leastGuix:
		c.kind, c.in.dir = Guix, storepath.Guix
	default:
		c.kind, c.in.dir = Nix, storepath.Nix
	}
	// No processor of our own; no space kept in reserve.
	if err := c.send(min(c.version, ourVersion), 0, 0); err != nil {
		return err
	}
	if c.kind == Nix && c.version >= 1<<8|33 {
		if c.release, err = c.in.word(); err != nil {
			return err
		}
	}
	return c.frames()
}

// frames reads frames without data.
func (c *Client) frames() error {
	_, err := c.in.frames(c.kind, c.Log, false)
	return err
}

// send sends numbers.
func (c *Client) send(numbers ...uint64) error {
	e := encoder{c.out}
	for _, n := range numbers {
		e.number(n)
	}
	return c.out.Flush()
}

// request is one request.
type request struct {
	act    string // for errors
	op     uint64
	args   func(encoder)
	data   func() error // sends what follows the arguments, beside the reading of frames; nil: nothing
	frames func() error // reads what precedes the results; nil: Client.frames
	reply  func() error // reads the results; nil: none
}

// do makes a request.
func (c *Client) do(ctx context.Context, r request) error {
	return c.guarded(ctx, r.act, func() error {
		e := encoder{c.out}
		e.number(r.op)
		r.args(e)
		if err := c.out.Flush(); err != nil {
			return err
		}
		send := r.data
		if send == nil {
			send = func() error { return nil }
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			err := send()
			if err == nil {
				err = c.out.Flush()
			}
			if err != nil {
				c.fail(err)
			}
		}()
		read := r.frames
		if read == nil {
			read = c.frames
		}
		err := read()
		if err != nil && !isDaemon(err) {
			c.fail(err)
		}
		<-sent
		if err == nil && r.reply != nil {
			err = r.reply()
		}
		return err
	})
}

// guarded runs one exchange with the daemon. If it ends with anything but the daemon's word, or if ctx ends before it, the connection is closed
// and the first reason of that is returned.
func (c *Client) guarded(ctx context.Context, act string, exchange func() error) error {
	stop := context.AfterFunc(ctx, func() { c.fail(context.Cause(ctx)) })
	defer stop()
	err := c.failed()
	if err == nil {
		err = exchange()
	}
	if e, ok := errors.AsType[*Error](err); ok && c.failed() == nil {
		e.Act = act
		return e
	}
	if err != nil {
		c.fail(err)
	}
	if err = c.failed(); err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	return nil
}

// fail closes the connection, for the first reason that is given.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.conn.Close()
	}
}

func (c *Client) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// encoder writes requests. Errors of writing are those of the next Flush.
type encoder struct{ *bufio.Writer }

func (e encoder) number(n uint64) { wire.WriteUint64(e, n) }
func (e encoder) flag(v bool)     { wire.WriteBool(e, v) }
func (e encoder) text(s string)   { wire.WriteString(e, s) }

func (e encoder) list(list []string) {
	e.number(uint64(len(list)))
	for _, s := range list {
		e.text(s)
	}
}
