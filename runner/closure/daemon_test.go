package closure

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
)

// script is a daemon that has said everything before it is asked.
type script struct {
	io.Reader
	said bytes.Buffer
}

func (s *script) Write(p []byte) (int, error)      { return s.said.Write(p) }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return nil }
func (s *script) RemoteAddr() net.Addr             { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

func ask(t *testing.T, answer []byte, path string) (Proof, error) {
	t.Helper()
	d := newDaemon(&script{Reader: bytes.NewReader(answer)})
	if err := d.during(t.Context(), d.greet); err != nil {
		return Proof{}, err
	}
	return d.Verify(t.Context(), path)
}

var (
	someHash    = digest.Of([]byte("x"))
	last        = number(stderrLast)
	nixGreeting = slices.Concat(number(serverMagic), number(protocol), text("2.8.0"), last)
	nixInfo     = slices.Concat(last, number(1), last, number(1), text(""), text(someHash.Hex()), number(1), text(storePath(1)), number(0), number(120), number(0), number(0), text(""))
	// Guix 1.5.0 as it was seen to answer.
	guixGreeting = slices.Concat(number(serverMagic), number(0x164), last)
	guixInfo     = slices.Concat(last, number(1), last, text("/gnu/store/"+part(3)+"-x.drv"), text(someHash.Hex()), number(0), number(1), number(120))
)

func TestDaemonAnswers(t *testing.T) {
	proof := Proof{NAR: someHash, References: []string{storePath(1)}, Source: "nix daemon"}
	for _, tt := range []struct {
		name   string
		answer []byte
		want   Proof
		err    string
	}{
		{"Nix", slices.Concat(nixGreeting, nixInfo), proof, ""},
		{"older Nix", slices.Concat(number(serverMagic), number(1<<8|21), last, nixInfo), proof, ""},
		{"Guix", slices.Concat(guixGreeting, guixInfo), Proof{NAR: someHash, References: []string{}, Source: "guix daemon"}, ""},
		{"logs first", slices.Concat(nixGreeting, number(stderrNext), text("hello"), nixInfo), proof, ""},
		{"unknown path", slices.Concat(nixGreeting, last, number(0)), Proof{}, "not known"},
		{"error of Nix", slices.Concat(nixGreeting, number(stderrError), text("Error"), number(0), text("Error"), text("disk I/O error"), number(0), number(0)), Proof{}, `it says "disk I/O error"`},
		{"error of Guix", slices.Concat(guixGreeting, number(stderrError), text("no such store"), number(1)), Proof{}, `it says "no such store"`},
		{"another protocol", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), Proof{}, "it speaks another protocol (0x312e312f50545448, version 0x6461422030303420)"},
		{"very old", slices.Concat(number(serverMagic), number(1<<8|10)), Proof{}, "it speaks another protocol (0x6478696f, version 0x10a)"},
		{"silent", nil, Proof{}, "unexpected EOF"},
		{"cut", slices.Concat(nixGreeting, nixInfo)[:200], Proof{}, "unexpected EOF"},
		{"no hash", slices.Concat(guixGreeting, last, number(1), last, text(""), text("abc"), number(0), number(1), number(1)), Proof{}, `it says that the hash is "abc"`},
		{"huge text", slices.Concat(nixGreeting, number(stderrNext), number(1<<40)), Proof{}, "a text of 1099511627776 bytes, more than 65536"},
		{"huge list", slices.Concat(guixGreeting, last, number(1), last, text(""), text(someHash.Hex()), number(1<<40)), Proof{}, "a list of 1099511627776 texts, more than 65536"},
		{"dirty padding", slices.Concat(nixGreeting, number(stderrNext), number(1), []byte("abcdefgh")), Proof{}, "a text is not filled up with zeros"},
		{"unknown message", slices.Concat(nixGreeting, number(7)), Proof{}, "it says 0x7, which is unknown"},
	} {
		got, err := ask(t, tt.answer, storePath(1))
		if tt.err == "" && err != nil || err != nil && !strings.HasSuffix(err.Error(), tt.err) || tt.err != "" && err == nil {
			t.Errorf("%s: error is %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// A daemon that got out of step is never asked again.
func TestDaemonIsAskedNoMore(t *testing.T) {
	d := newDaemon(&script{Reader: bytes.NewReader(slices.Concat(nixGreeting, number(7), nixInfo))})
	if err := d.during(t.Context(), d.greet); err != nil {
		t.Fatal(err)
	}
	_, first := d.Verify(t.Context(), storePath(1))
	if _, second := d.Verify(t.Context(), storePath(1)); first == nil || !errors.Is(second, first) {
		t.Errorf("errors are %v and %v", first, second)
	}
}

// FuzzDaemon: whatever a daemon says, the answer is an error or a proof with a hash.
func FuzzDaemon(f *testing.F) {
	f.Add(slices.Concat(nixGreeting, nixInfo))
	f.Add(slices.Concat(guixGreeting, guixInfo))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ask(t, b, storePath(1))
		if err == nil && (p.NAR == digest.SHA256{} && !bytes.Contains(b, []byte(strings.Repeat("0", 64))) || p.References == nil) {
			t.Errorf("%+v", p)
		}
	})
}

// FuzzRegistrations: whatever nix-store says, it is refused, or has a hash and references for each path.
func FuzzRegistrations(f *testing.F) {
	f.Add([]byte(storePath(1) + "\n" + someHash.Hex() + "\n120\n\n1\n" + storePath(2) + "\n"))
	f.Add([]byte(storePath(1) + "\nsha256:" + someHash.Hex() + "\n120\n/nix/store/x.drv\n0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := parseRegistrations(b)
		for path, p := range all {
			if _, ok := storeOf(path); err != nil || !ok || p.References == nil {
				t.Errorf("%q: %+v, %v", path, p, err)
			}
		}
	})
}
