package closure

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"arch.network/attest/digest"
)

// The sockets of the daemons, as their packages install them.
const (
	NixSocket  = "/nix/var/nix/daemon-socket/socket"
	GuixSocket = "/var/guix/daemon-socket/socket"
)

// Daemon asks nix-daemon or guix-daemon for what the store's database says, over its socket. Whoever administers the host runs the
// daemon: its word is as good as the host's own programs. It only asks: nothing is built, fetched or written. It is not safe
// for concurrent use.
type Daemon struct {
	conn net.Conn
	r    *bufio.Reader
	guix bool
	bad  error // after which nothing can be read any more
}

// The worker protocol, which Guix has from an early Nix (worker-protocol.hh): little-endian numbers of 64 bits, and strings with their
// length before them and zeros behind them up to a multiple of 8 bytes.
const (
	clientMagic  = 0x6e697863
	serverMagic  = 0x6478696f
	protocol     = 1<<8 | 34 // of Nix 2.8, which later ones still speak
	firstNix     = 1<<8 | 18 // of Nix 2.0; before that, what is asked for here had other answers
	guixProtocol = 1<<8 | 96 // Guix counts from 1.96 on

	opIsValidPath   = 1
	opQueryPathInfo = 26

	stderrNext  = 0x6f6c6d67
	stderrError = 0x63787470
	stderrLast  = 0x616c7473

	maxDaemonText    = 64 << 10
	maxDaemonStrings = 1 << 16
)

// daemonTimeout bounds an answer, which comes from a database on the same host.
const daemonTimeout = time.Minute

// OpenDaemon connects to the daemon that listens at a socket. The caller closes it.
func OpenDaemon(ctx context.Context, socket string) (*Daemon, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("ask the store's daemon: %w", err)
	}
	d := newDaemon(conn)
	if err := d.during(ctx, d.greet); err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask the store's daemon at %s: %w", socket, err)
	}
	return d, nil
}

func newDaemon(conn net.Conn) *Daemon { return &Daemon{conn: conn, r: bufio.NewReader(conn)} }

// Close ends the connection.
func (d *Daemon) Close() error { return d.conn.Close() }

// Verify is for Options.Verify.
func (d *Daemon) Verify(ctx context.Context, path string) (Proof, error) {
	if d.bad != nil {
		return Proof{}, d.bad
	}
	var p Proof
	err := d.during(ctx, func() (err error) {
		p, err = d.query(path)
		return err
	})
	if err != nil {
		if !errors.Is(err, ErrUnknown) {
			d.bad = fmt.Errorf("ask the store's daemon for %s: %w", path, err)
			return Proof{}, d.bad
		}
		return Proof{}, err
	}
	return p, nil
}

// during does one exchange, which ends with the context.
func (d *Daemon) during(ctx context.Context, exchange func() error) error {
	if err := d.conn.SetDeadline(time.Now().Add(daemonTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { d.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := exchange()
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// greet agrees on the protocol.
func (d *Daemon) greet() error {
	if err := d.send(number(clientMagic)); err != nil {
		return err
	}
	magic, err := d.number()
	if err != nil {
		return err
	}
	version, err := d.number()
	if err != nil {
		return err
	}
	d.guix = version >= guixProtocol
	if magic != serverMagic || version>>8 != 1 || version < firstNix {
		return fmt.Errorf("it speaks another protocol (%#x, version %#x)", magic, version)
	}
	// The version spoken, no processor to be tied to, and no space to be reserved.
	if err := d.send(number(protocol), number(0), number(0)); err != nil {
		return err
	}
	const versionString = 1<<8 | 33 // since then, Nix says its own version
	if !d.guix && version >= versionString {
		if _, err := d.text(); err != nil {
			return err
		}
	}
	return d.logs()
}

func (d *Daemon) query(path string) (Proof, error) {
	if err := d.send(number(opIsValidPath), text(path)); err != nil {
		return Proof{}, err
	}
	if err := d.logs(); err != nil {
		return Proof{}, err
	}
	valid, err := d.number()
	if err != nil {
		return Proof{}, err
	}
	if valid == 0 {
		return Proof{}, ErrUnknown
	}
	if err := d.send(number(opQueryPathInfo), text(path)); err != nil {
		return Proof{}, err
	}
	if err := d.logs(); err != nil {
		return Proof{}, err
	}
	return d.info()
}

// info reads what is known of a path. Guix neither says again that it is valid, nor has what comes behind the size.
func (d *Daemon) info() (Proof, error) {
	if !d.guix {
		valid, err := d.number()
		if err != nil || valid == 0 {
			return Proof{}, errors.Join(err, errors.New("a valid path is not valid"))
		}
	}
	p := Proof{Source: "nix daemon", References: []string{}}
	if d.guix {
		p.Source = "guix daemon"
	}
	_, err := d.text() // the deriver
	var sum string
	if err == nil {
		sum, err = d.text()
	}
	if err == nil {
		p.References, err = d.texts()
	}
	for range 2 { // when it was registered, and how large it is
		if err == nil {
			_, err = d.number()
		}
	}
	if err == nil && !d.guix {
		err = d.skipRest()
	}
	if err != nil {
		return Proof{}, err
	}
	raw, err := hex.DecodeString(sum)
	if err != nil || len(raw) != len(p.NAR) {
		return Proof{}, fmt.Errorf("it says that the hash is %.100q", sum)
	}
	p.NAR = digest.SHA256(raw)
	return p, nil
}

// skipRest reads whether a path was built here, its signatures, and how its content is addressed.
func (d *Daemon) skipRest() error {
	if _, err := d.number(); err != nil {
		return err
	}
	if _, err := d.texts(); err != nil {
		return err
	}
	_, err := d.text()
	return err
}

// logs reads what the daemon has to say before it answers.
func (d *Daemon) logs() error {
	for range maxDaemonStrings {
		kind, err := d.number()
		if err != nil {
			return err
		}
		switch kind {
		case stderrLast:
			return nil
		case stderrNext:
			if _, err := d.text(); err != nil {
				return err
			}
		case stderrError:
			return d.failure()
		default:
			return fmt.Errorf("it says %#x, which is unknown", kind)
		}
	}
	return errors.New("it does not come to an end")
}

// failure reads an error: since Nix 2.4 its type, level, name and text; elsewhere only a text.
func (d *Daemon) failure() error {
	message, err := d.text()
	if err != nil || d.guix {
		return errors.Join(err, fmt.Errorf("it says %.300q", message))
	}
	if _, err := d.number(); err != nil {
		return err
	}
	if _, err := d.text(); err != nil {
		return err
	}
	if message, err = d.text(); err != nil {
		return err
	}
	return fmt.Errorf("it says %.300q", message)
}

// number and text are the forms on the wire.
func number(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

func text(s string) []byte {
	b := append(number(uint64(len(s))), s...)
	return append(b, make([]byte, -len(s)&7)...)
}

func (d *Daemon) send(parts ...[]byte) error {
	var b []byte
	for _, part := range parts {
		b = append(b, part...)
	}
	_, err := d.conn.Write(b)
	return err
}

func (d *Daemon) number() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(d.r, b[:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

func (d *Daemon) text() (string, error) {
	n, err := d.number()
	if err != nil {
		return "", err
	}
	if n > maxDaemonText {
		return "", fmt.Errorf("a text of %d bytes, more than %d", n, maxDaemonText)
	}
	b := make([]byte, (n+7)&^7)
	if _, err := io.ReadFull(d.r, b); err != nil {
		return "", io.ErrUnexpectedEOF
	}
	for _, c := range b[n:] {
		if c != 0 {
			return "", errors.New("a text is not filled up with zeros")
		}
	}
	return string(b[:n]), nil
}

func (d *Daemon) texts() ([]string, error) {
	n, err := d.number()
	if err != nil {
		return nil, err
	}
	if n > maxDaemonStrings {
		return nil, fmt.Errorf("a list of %d texts, more than %d", n, maxDaemonStrings)
	}
	list := []string{}
	for range n {
		s, err := d.text()
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
