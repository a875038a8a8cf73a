package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the external signer of the tests below.
func TestMain(m *testing.M) {
	if mode := os.Getenv("IDENTITY_TEST_SIGNER"); mode != "" {
		os.Exit(actSigner(mode, os.Args[1:]))
	}
	os.Exit(m.Run())
}

func actSigner(mode string, args []string) int {
	k, err := newKey(Ed25519, seed(8))
	if err != nil {
		return 1
	}
	fmt.Fprintln(os.Stderr, "touch the token")
	switch {
	case mode == "silent":
		return 0
	case mode == "fails":
		return 3
	case mode == "hangs":
		for {
			syscall.Pause()
		}
	case mode == "floods":
		for {
			if _, err := os.Stdout.Write(make([]byte, 1<<16)); err != nil {
				return 1
			}
		}
	case args[0] == "public":
		fmt.Println(k.Public())
		return 0
	case args[0] == "sign" && args[1] == k.Public().String():
		message, err := io.ReadAll(os.Stdin)
		if err != nil {
			return 1
		}
		if mode == "lies" {
			message = append(message, '!')
		}
		sig, err := k.Sign(context.Background(), message)
		if err != nil {
			return 1
		}
		os.Stdout.Write(sig)
		return 0
	}
	return 2
}

func TestExternalSigner(t *testing.T) {
	t.Setenv("IDENTITY_TEST_SIGNER", "works")
	var stderr bytes.Buffer
	s, err := Load(t.Context(), "exec:"+os.Args[0], LoadOptions{Stderr: &stderr})
	if err != nil {
		t.Fatal(err)
	}
	if want := mustKey(t, Ed25519, 8).Public(); !s.Public().Equal(want) {
		t.Fatalf("key %v, not %v", s.Public(), want)
	}
	message := bytes.Repeat([]byte("DSSEv1 "), 1<<14)
	if err := s.Public().Verify(message, mustSign(t, s, message)); err != nil {
		t.Error(err)
	}
	if stderr.String() != "touch the token\ntouch the token\n" {
		t.Errorf("stderr %q", stderr.String())
	}
}

func TestExternalSignerMisbehaves(t *testing.T) {
	public := mustKey(t, Ed25519, 8).Public()
	for _, c := range []struct {
		mode   string
		public PublicKey
		want   string
	}{
		{"silent", public, "returned a wrong signature"},
		{"lies", public, "returned a wrong signature"},
		{"fails", public, "sign: exit status 3"},
		{"floods", public, "sign: more than 8192 bytes of output"},
		{"hangs", public, "sign: no answer within 20ms"},
		{"works", mustKey(t, Ed25519, 9).Public(), "sign: exit status 2"},
		{"silent", PublicKey{}, "OpenPGP certificate"},
		{"fails", PublicKey{}, "public: exit status 3"},
		{"floods", PublicKey{}, "public: more than 32768 bytes of output"},
	} {
		t.Run(fmt.Sprintf("%s %v", c.mode, c.public.IsZero()), func(t *testing.T) {
			t.Setenv("IDENTITY_TEST_SIGNER", c.mode)
			opts := LoadOptions{Public: c.public}
			if c.mode == "hangs" {
				opts.Timeout = 20 * time.Millisecond
			}
			s, err := Load(t.Context(), "exec:"+os.Args[0], opts)
			if err == nil {
				var sig []byte
				if sig, err = s.Sign(t.Context(), []byte("message")); sig != nil {
					t.Errorf("returned %d bytes", len(sig))
				}
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, not %q", err, c.want)
			}
		})
	}
}

func TestExternalSignerStopsWithItsContext(t *testing.T) {
	t.Setenv("IDENTITY_TEST_SIGNER", "hangs")
	s, err := Load(t.Context(), "exec:"+os.Args[0], LoadOptions{Public: mustKey(t, Ed25519, 8).Public()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Sign(ctx, []byte("message")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestExternalSignerIsNotAShell(t *testing.T) {
	proof := filepath.Join(t.TempDir(), "proof")
	_, err := Load(t.Context(), "exec:/nonexistent/signer; touch "+proof, LoadOptions{})
	if err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(proof); err == nil {
		t.Error("a shell ran")
	}
}
