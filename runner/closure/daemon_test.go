package closure

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"arch.network/attest/digest"
)

// number and text are the forms on the wire: see package daemon, whose tests have the hostile ones.
func number(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

func text(s string) []byte {
	return slices.Concat(number(uint64(len(s))), []byte(s), make([]byte, -len(s)&7))
}

// listen returns the socket of a daemon that says the same to everybody, whatever it is asked.
func listen(t *testing.T, answer []byte) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "arch-closure-") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		listener.Close()
		os.RemoveAll(dir)
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				conn.Write(answer)
				io.Copy(io.Discard, conn) // until the client has closed
				conn.Close()
			}()
		}
	}()
	return socket
}

// What daemons say becomes proofs. The answers are those that Nix 2.8.0 and Guix 1.5.0 were seen to give.
func TestDaemonProofs(t *testing.T) {
	const last, failed = 0x616c7473, 0x63787470
	hash := digest.Of([]byte("x"))
	nix := slices.Concat(number(0x6478696f), number(1<<8|34), text("2.8.0"), number(last))
	guix := slices.Concat(number(0x6478696f), number(0x164), number(last))
	guixPath := "/gnu/store/" + part(3) + "-x"
	for _, tt := range []struct {
		name, path string
		answer     []byte
		want       Proof
		err        string
	}{
		{
			"Nix", storePath(1), slices.Concat(nix, number(last), number(1), text(""), text(hash.Hex()), number(1), text(storePath(1)), number(0), number(120), number(0), number(0), text("")),
			Proof{NAR: hash, References: []string{storePath(1)}, Source: "nix daemon"},
			"",
		},
		{"unknown to Nix", storePath(1), slices.Concat(nix, number(last), number(0)), Proof{}, "not known"},
		{
			"Guix", guixPath, slices.Concat(guix, number(last), text(guixPath+".drv"), text(hash.Hex()), number(0), number(1), number(120)),
			Proof{NAR: hash, References: []string{}, Source: "guix daemon"},
			"",
		},
		{"unknown to Guix", guixPath, slices.Concat(guix, number(failed), text("path is not valid"), number(1), number(last), number(0)), Proof{}, "not known"},
		{"another store", guixPath, slices.Concat(nix, number(last)), Proof{}, "is not in /nix/store"},
		{"another protocol", storePath(1), []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), Proof{}, "it is no daemon of a Nix or Guix store"},
	} {
		got, err := func() (Proof, error) {
			d, err := OpenDaemon(t.Context(), listen(t, tt.answer))
			if err != nil {
				return Proof{}, err
			}
			defer d.Close()
			return d.Verify(t.Context(), tt.path)
		}()
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) || errors.Is(err, ErrUnknown) != (tt.err == ErrUnknown.Error()) {
			t.Errorf("%s: error is %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}
