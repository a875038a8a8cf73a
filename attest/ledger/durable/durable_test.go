package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"arch.network/attest/ledger/durable"
)

func TestWriteFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := durable.MakeDir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	for _, text := range []string{"one", "another"} {
		if err := durable.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if data, err := durable.ReadFile(path, 10); err != nil || string(data) != text {
			t.Errorf("%q, %v", data, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	if _, err := durable.ReadFile(path, 3); err == nil {
		t.Error("a file over the limit was read")
	}
	if err := durable.MakeDir(filepath.Join(path, "below"), 0o755); err == nil {
		t.Error("a directory was made below a file")
	}
	if err := durable.WriteFile(dir, []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced by a file")
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := durable.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.Lock(path); !errors.As(err, new(*durable.InUseError)) {
		t.Errorf("it was locked twice: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	unlock, err = durable.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// Sweep removes what killed writers of one file left, and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"key", ".key.123", ".key.7", ".key.", ".key.x1", ".keys.123", "key.123", ".other.5"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.Sweep(filepath.Join(dir, "key")); err != nil {
		t.Fatal(err)
	}
	var left []string
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		left = append(left, e.Name())
	}
	if got := strings.Join(left, " "); got != ".key. .key.x1 .keys.123 .other.5 key key.123" {
		t.Error(got)
	}
	if err := durable.Sweep(filepath.Join(dir, "nowhere", "key")); err == nil {
		t.Error("a directory that is not there was swept")
	}
}
